// What the Kubernetes API of a cluster is asked for: whether it is ready, its nodes, its services, its default objects.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// storageClass is the default class; its volumes are folders on this machine.
const storageClass = "standard"

// pollPeriod is how often a state is asked for that gives no event.
const pollPeriod = 100 * time.Millisecond

// client talks to the API server over a network of the cluster; nil when the caller is inside it already.
func (c Cluster) client(network *Network) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.AdminKubeconfig())
	if err != nil {
		return nil, err
	}
	config.Timeout = 10 * time.Second
	config.QPS, config.Burst = -1, -1
	if network != nil {
		config.Dial = network.Dial
	}
	return kubernetes.NewForConfig(config)
}

// poll asks until there is no error; what the last answer lacked is the error when time is up.
func poll(ctx context.Context, timeout time.Duration, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not after %v: %w", what, timeout, err)
		case <-time.After(pollPeriod):
		}
	}
}

func apiReady(ctx context.Context, client kubernetes.Interface) error {
	return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// waitForAPIServer is for a node's first process, which is inside the network.
func waitForAPIServer(ctx context.Context, c Cluster) error {
	client, err := c.client(nil)
	if err != nil {
		return err
	}
	return poll(ctx, time.Hour, "API server ready", func(ctx context.Context) error { return apiReady(ctx, client) })
}

// nodesReady fails until exactly the nodes of the cluster are there and Ready.
func nodesReady(ctx context.Context, client kubernetes.Interface, nodes int) error {
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	ready := map[string]bool{}
	for _, node := range list.Items {
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				ready[node.Name] = true
			}
		}
	}
	var missing []string
	for i := range nodes {
		if name := (Node{Index: i}).Name(); !ready[name] {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not ready: %s", strings.Join(missing, ", "))
	}
	return nil
}

// dnsAnswers fails until the cluster's name server knows the API server's service.
func dnsAnswers(ctx context.Context, c Cluster, network *Network) error {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, protocol, _ string) (net.Conn, error) {
		return network.Dial(ctx, protocol, net.JoinHostPort(c.APIServer().Addr().String(), "53"))
	}}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	return err
}

// accountExists fails until pods can be made in the default namespace.
func accountExists(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
	return err
}

func createStorageClass(ctx context.Context, client kubernetes.Interface) error {
	binding := storagev1.VolumeBindingWaitForFirstConsumer
	_, err := client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: storageClass, Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner:       provisionerClass,
		VolumeBindingMode: &binding,
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// serviceAddress finds the cluster IP and the port of a service; port is a number or a port's name.
func serviceAddress(ctx context.Context, client kubernetes.Interface, namespace, name, port string) (string, error) {
	service, err := client.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if ip := service.Spec.ClusterIP; ip == "" || ip == corev1.ClusterIPNone {
		return "", fmt.Errorf("service %s/%s has no cluster IP: name one that is not headless, or a pod's IP:PORT", namespace, name)
	}
	var known []string
	for _, p := range service.Spec.Ports {
		number := fmt.Sprint(p.Port)
		if port == number || port == p.Name {
			return net.JoinHostPort(service.Spec.ClusterIP, number), nil
		}
		known = append(known, strings.TrimPrefix(p.Name+"/"+number, "/"))
	}
	return "", errors.New("service " + namespace + "/" + name + " has no port " + port + ", it has: " + strings.Join(known, ", "))
}
