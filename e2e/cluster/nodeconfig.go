// What each program of a node is told: its arguments and its configuration files, rendered from the address plan.
package main

import (
	"bytes"
	"embed"
	"fmt"
	"net/netip"
	"os"
	"text/template"
)

//go:embed config
var configs embed.FS

// nodeFiles maps each template to where a node keeps the result, below its folder.
var nodeFiles = map[string]string{
	"kubelet.yaml":    "kubelet.yaml",
	"kube-proxy.yaml": "kube-proxy.yaml",
	"containerd.toml": "containerd.toml",
	"cni.conflist":    "cni/10-fortia.conflist",
	"Corefile":        "Corefile",
}

// program is one process that a node keeps running.
type program struct {
	name string
	args []string
	// path is empty for a component of this binary.
	path string
}

// renderConfig fills one template for a node.
func renderConfig(n Node, name string) ([]byte, error) {
	t, err := template.ParseFS(configs, "config/"+name)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Option("missingkey=error").Execute(&out, struct {
		Node   Node
		Pki    string
		Server netip.AddrPort
		Pause  string
	}{n, n.Cluster.path("pki"), n.Cluster.APIServer(), pauseImage})
	return out.Bytes(), err
}

// writeConfigs prepares a node's folder.
func writeConfigs(n Node) error {
	for _, folder := range []string{"cni", "containerd", "kubelet", "logs", "pods", "plugins"} {
		if err := os.MkdirAll(n.path(folder), 0o755); err != nil {
			return err
		}
	}
	for name, file := range nodeFiles {
		content, err := renderConfig(n, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(n.path(file), content, 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(n.path("resolv.conf"), fmt.Appendf(nil, "nameserver %s\n", n.Cluster.APIServer().Addr()), 0o644)
}

// firstPrograms start at once; the others wait until the API server is ready.
func firstPrograms(n Node) []program {
	runtime := program{name: "containerd", path: "containerd", args: []string{"--config", n.path("containerd.toml"), "--log-level", "warn"}}
	if n.Index > 0 {
		return []program{runtime}
	}
	return []program{etcd(n), apiServer(n), runtime}
}

func latePrograms(n Node) []program {
	late := []program{
		{name: "kubelet", args: []string{"--config=" + n.path("kubelet.yaml"), "--kubeconfig=" + n.Cluster.path("pki", n.Name()+".kubeconfig"),
			"--root-dir=" + n.path("kubelet"), "--cert-dir=" + n.path("kubelet", "pki"),
			"--hostname-override=" + n.Name(), "--node-ip=" + n.Address().String()}},
		{name: "kube-proxy", args: []string{"--config=" + n.path("kube-proxy.yaml")}},
	}
	if n.Index > 0 {
		return late
	}
	return append(late, controllerManager(n.Cluster), kubeScheduler(n.Cluster),
		program{name: "coredns", args: []string{"-conf", n.path("Corefile")}},
		program{name: provisionerName, args: []string{n.Cluster.AdminKubeconfig(), n.Cluster.path("volumes")}})
}

func etcd(n Node) program {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return program{name: "etcd", args: []string{"--data-dir=" + n.path("etcd"), "--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--log-level=warn",
		// The data need not outlive the machine, and waiting for the disk is most of what etcd does.
		"--unsafe-no-fsync"}}
}

func apiServer(n Node) program {
	c := n.Cluster
	pki := func(file string) string { return c.path("pki", file) }
	return program{name: "kube-apiserver", args: []string{"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + c.APIServer().Addr().String(), fmt.Sprintf("--secure-port=%d", c.APIServer().Port()),
		"--service-cluster-ip-range=" + c.Services().String(),
		"--cert-dir=" + n.path("apiserver"), "--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + pki("ca.crt"), "--kubelet-certificate-authority=" + pki("ca.crt"),
		"--kubelet-client-certificate=" + pki("admin.crt"), "--kubelet-client-key=" + pki("admin.key"),
		// The host cannot look node names up.
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged", "--profiling=false"}}
}

func controllerManager(c Cluster) program {
	pki := func(file string) string { return c.path("pki", file) }
	return program{name: "kube-controller-manager", args: []string{"--kubeconfig=" + pki("kube-controller-manager.kubeconfig"),
		"--service-account-private-key-file=" + pki("sa.key"), "--root-ca-file=" + pki("ca.crt"),
		"--cluster-signing-cert-file=" + pki("ca.crt"), "--cluster-signing-key-file=" + pki("ca.key"),
		"--cert-dir=" + c.path("pki"), "--use-service-account-credentials", "--leader-elect=false", "--profiling=false",
		// The default of 20 requests a second is most of the time that a new cluster takes.
		"--kube-api-qps=500", "--kube-api-burst=1000"}}
}

func kubeScheduler(c Cluster) program {
	return program{name: "kube-scheduler", args: []string{"--kubeconfig=" + c.path("pki", "kube-scheduler.kubeconfig"),
		"--cert-dir=" + c.path("pki"), "--leader-elect=false", "--profiling=false"}}
}
