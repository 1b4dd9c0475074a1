// The provisioner of local volumes: a folder and a PersistentVolume for each claim that has found its node.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// provisionerClass is the provisioner's name in a StorageClass.
const provisionerClass = "fortia.dev/local"

// Annotations by which the volume controller and the scheduler hand a claim to its provisioner.
const (
	annotationProvisioner   = "volume.kubernetes.io/storage-provisioner"
	annotationSelectedNode  = "volume.kubernetes.io/selected-node"
	annotationProvisionedBy = "pv.kubernetes.io/provisioned-by"
)

// runProvisioner is the component: its arguments are a kubeconfig and the folder of all volumes.
func runProvisioner(args []string) {
	if len(args) != 3 {
		log.Fatalf("usage: %s KUBECONFIG FOLDER", provisionerName)
	}
	config, err := clientcmd.BuildConfigFromFlags("", args[1])
	if err != nil {
		log.Fatal(err)
	}
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	if err := provision(context.Background(), client, args[2]); err != nil {
		log.Fatal(err)
	}
}

// provision looks at all claims and volumes whenever one of them changes; there are never many.
func provision(ctx context.Context, client kubernetes.Interface, folder string) error {
	unix.Umask(0) // a volume is open to any user until fsGroup narrows it; a later chmod could undo that
	factory := informers.NewSharedInformerFactory(client, 0)
	claims, volumes := factory.Core().V1().PersistentVolumeClaims(), factory.Core().V1().PersistentVolumes()
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: func(any) { notify() }, UpdateFunc: func(any, any) { notify() }, DeleteFunc: func(any) { notify() }}
	for _, informer := range []cache.SharedIndexInformer{claims.Informer(), volumes.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	debug.FreeOSMemory() // what the start needed is most of this process
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		allClaims, err := claims.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		allVolumes, err := volumes.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		if err := errors.Join(makeVolumes(ctx, client, folder, allClaims), deleteVolumes(ctx, client, folder, allVolumes)); err != nil {
			log.Print(err)
			time.AfterFunc(time.Second, notify)
		}
	}
}

// wanted says whether a claim waits for a volume from us.
func wanted(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Status.Phase == corev1.ClaimPending && claim.Spec.VolumeName == "" && claim.DeletionTimestamp == nil &&
		claim.Annotations[annotationProvisioner] == provisionerClass && claim.Annotations[annotationSelectedNode] != ""
}

func makeVolumes(ctx context.Context, client kubernetes.Interface, folder string, claims []*corev1.PersistentVolumeClaim) error {
	var failed error
	for _, claim := range claims {
		if !wanted(claim) {
			continue
		}
		volume := volumeFor(claim, folder)
		err := os.MkdirAll(volume.Spec.Local.Path, 0o777)
		if err == nil {
			_, err = client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			failed = errors.Join(failed, fmt.Errorf("volume for %s/%s: %w", claim.Namespace, claim.Name, err))
		}
	}
	return failed
}

// volumeFor is the volume of a claim: its name follows from the claim, so that a second attempt makes no second volume.
func volumeFor(claim *corev1.PersistentVolumeClaim, folder string) *corev1.PersistentVolume {
	name := "pvc-" + string(claim.UID)
	class := ""
	if claim.Spec.StorageClassName != nil {
		class = *claim.Spec.StorageClassName
	}
	node := corev1.NodeSelectorRequirement{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{claim.Annotations[annotationSelectedNode]}}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{annotationProvisionedBy: provisionerClass}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    claim.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			StorageClassName:              class,
			ClaimRef: &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: filepath.Join(folder, name)}},
			NodeAffinity:           &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{node}}}}},
		},
	}
}

// deleteVolumes removes volumes whose claim is gone, with their folders.
func deleteVolumes(ctx context.Context, client kubernetes.Interface, folder string, volumes []*corev1.PersistentVolume) error {
	var failed error
	for _, volume := range volumes {
		ours := volume.Annotations[annotationProvisionedBy] == provisionerClass && volume.Spec.Local != nil
		if !ours || volume.Status.Phase != corev1.VolumeReleased || volume.DeletionTimestamp != nil ||
			volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
			continue
		}
		err := os.RemoveAll(filepath.Join(folder, volume.Name))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &volume.UID}})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			failed = errors.Join(failed, fmt.Errorf("delete volume %s: %w", volume.Name, err))
		}
	}
	return failed
}
