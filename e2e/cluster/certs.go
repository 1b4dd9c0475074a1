// The cluster's certificates and kubeconfig files: who exists, what they may prove, where their keys lie.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const certificateLife = 365 * 24 * time.Hour

// identity is one holder of a certificate.
type identity struct {
	file   string
	name   string
	groups []string
	dns    []string
	ips    []net.IP
}

// identities lists everyone in a cluster who needs a certificate.
func identities(c Cluster, nodes int) []identity {
	service := c.Services().Addr().Next()
	all := []identity{
		{file: "apiserver", name: "kube-apiserver",
			dns: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"},
			ips: []net.IP{net.IPv4(127, 0, 0, 1), c.APIServer().Addr().AsSlice(), service.AsSlice()}},
		{file: "admin", name: "admin", groups: []string{"system:masters"}},
		{file: "kube-controller-manager", name: "system:kube-controller-manager"},
		{file: "kube-scheduler", name: "system:kube-scheduler"},
		{file: "kube-proxy", name: "system:kube-proxy"},
	}
	for i := range nodes {
		n := c.Node(i)
		all = append(all, identity{file: n.Name(), name: "system:node:" + n.Name(), groups: []string{"system:nodes"},
			dns: []string{n.Name()}, ips: []net.IP{n.Address().AsSlice()}})
	}
	return all
}

// authority signs the certificates of one cluster.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: key, pem: encode("CERTIFICATE", der)}, nil
}

// issue makes a key and a certificate for who, as PEM.
func (a *authority) issue(who identity) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: who.name, Organization: who.groups},
		NotBefore: now.Add(-time.Hour), NotAfter: a.cert.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    who.dns, IPAddresses: who.ips,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(private)
	return encode("CERTIFICATE", der), key, err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return encode("EC PRIVATE KEY", der), err
}

// writeCertificates fills the pki folder: authority, one certificate and one kubeconfig per identity, the service account key.
func writeCertificates(c Cluster, nodes int) error {
	ca, err := newAuthority("fortia-" + c.Name)
	if err != nil {
		return err
	}
	caKey, err := encodeKey(ca.key)
	if err != nil {
		return err
	}
	account, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	accountKey, err := encodeKey(account)
	if err != nil {
		return err
	}
	accountPublic, err := x509.MarshalPKIXPublicKey(account.Public())
	if err != nil {
		return err
	}
	files := map[string][]byte{"ca.crt": ca.pem, "ca.key": caKey, "sa.key": accountKey, "sa.pub": encode("PUBLIC KEY", accountPublic)}
	server := "https://" + c.APIServer().String()
	for _, who := range identities(c, nodes) {
		cert, key, err := ca.issue(who)
		if err != nil {
			return err
		}
		config, err := kubeconfig("fortia-"+c.Name, server, ca.pem, cert, key)
		if err != nil {
			return err
		}
		files[who.file+".crt"], files[who.file+".key"], files[who.file+".kubeconfig"] = cert, key, config
	}
	for name, content := range files {
		if err := os.WriteFile(c.path("pki", name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// kubeconfig renders a self-contained kubeconfig.
func kubeconfig(name, server string, ca, cert, key []byte) ([]byte, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	return clientcmd.Write(*config)
}

// writeHostKubeconfig makes the file that programs on the host use, by way of the loopback forward.
func writeHostKubeconfig(c Cluster, address string) error {
	config, err := clientcmd.LoadFromFile(c.AdminKubeconfig())
	if err != nil {
		return err
	}
	for _, cluster := range config.Clusters {
		cluster.Server = "https://" + address
	}
	content, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return replaceFile(c.Kubeconfig(), content)
}

// replaceFile never leaves a half-written file behind.
func replaceFile(path string, content []byte) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
