package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

func TestEveryConfigurationFileIsWellFormedAndOfItsNode(t *testing.T) {
	n := cluster(t, "test").Node(2)
	for name := range nodeFiles {
		content, err := renderConfig(n, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var parsed any
		switch {
		case strings.HasSuffix(name, ".yaml"):
			err = yaml.UnmarshalStrict(content, &parsed)
		case strings.HasSuffix(name, ".conflist"):
			err = json.Unmarshal(content, &parsed)
		}
		if err != nil || strings.Contains(string(content), "<no value>") {
			t.Errorf("%s: %v\n%s", name, err, content)
		}
	}
}

func TestOnlyTheFirstNodeCarriesTheControlPlane(t *testing.T) {
	names := func(n Node) (all []string) {
		for _, p := range append(firstPrograms(n), latePrograms(n)...) {
			all = append(all, p.name)
		}
		return all
	}
	c := cluster(t, "test")
	worker := names(c.Node(1))
	slices.Sort(worker)
	if !slices.Equal(worker, []string{"containerd", "kube-proxy", "kubelet"}) {
		t.Errorf("worker runs %v", worker)
	}
	for _, name := range names(c.Node(0)) {
		if _, known := components[name]; !known && name != "containerd" {
			t.Errorf("%s is not compiled in", name)
		}
	}
}

func TestCertificatesProveWhatKubernetesAsksFor(t *testing.T) {
	c := Cluster{Name: "test", Dir: t.TempDir()}
	if err := os.Mkdir(c.path("pki"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeCertificates(c, 2); err != nil {
		t.Fatal(err)
	}
	read := func(name string) *x509.Certificate {
		content, err := os.ReadFile(c.path("pki", name+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(content)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	roots := x509.NewCertPool()
	roots.AddCert(read("ca"))
	for _, name := range []string{"127.0.0.1", c.APIServer().Addr().String(), c.Services().Addr().Next().String(), "kubernetes.default.svc"} {
		if _, err := read("apiserver").Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("API server as %s: %v", name, err)
		}
	}
	kubelet := read("node1")
	if kubelet.Subject.CommonName != "system:node:node1" || !slices.Equal(kubelet.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("kubelet is %v", kubelet.Subject)
	}
	if err := writeHostKubeconfig(c, "127.0.0.1:1234"); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil || config.Host != "https://127.0.0.1:1234" {
		t.Errorf("%v %v", config, err)
	}
}
