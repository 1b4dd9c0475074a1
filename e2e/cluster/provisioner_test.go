package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func claim() *corev1.PersistentVolumeClaim {
	class := storageClass
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data", UID: "u1",
			Annotations: map[string]string{annotationProvisioner: provisionerClass, annotationSelectedNode: "node1"}},
		Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
	}
}

func TestOnlyAClaimWithANodeAndOurClassIsServed(t *testing.T) {
	if !wanted(claim()) {
		t.Error("a claim was left waiting")
	}
	for what, change := range map[string]func(*corev1.PersistentVolumeClaim){
		"without a node":   func(c *corev1.PersistentVolumeClaim) { delete(c.Annotations, annotationSelectedNode) },
		"of another class": func(c *corev1.PersistentVolumeClaim) { c.Annotations[annotationProvisioner] = "other" },
		"already bound":    func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimBound },
		"with its volume":  func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" },
	} {
		c := claim()
		change(c)
		if wanted(c) {
			t.Errorf("a claim %s was served", what)
		}
	}
}

func TestAClaimGetsAFolderOnItsNodeAndLosesItWhenReleased(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	folder, client := t.TempDir(), fake.NewClientset(claim())
	go func() { _ = provision(ctx, client, folder) }()
	volumes := client.CoreV1().PersistentVolumes()
	until := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("never " + what)
			}
		}
	}
	var volume *corev1.PersistentVolume
	until("made", func() (ok bool) {
		var err error
		volume, err = volumes.Get(ctx, "pvc-u1", metav1.GetOptions{})
		return err == nil
	})
	path := filepath.Join(folder, "pvc-u1")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o777 || volume.Spec.Local.Path != path {
		t.Errorf("%v %v %s", info, err, volume.Spec.Local.Path)
	}
	if node := volume.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0]; node != "node1" {
		t.Errorf("on %s", node)
	}
	if err := client.CoreV1().PersistentVolumeClaims("default").Delete(ctx, "data", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	volume.Status.Phase = corev1.VolumeReleased
	if _, err := volumes.UpdateStatus(ctx, volume, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until("removed", func() bool { _, err := os.Stat(path); return os.IsNotExist(err) })
}
