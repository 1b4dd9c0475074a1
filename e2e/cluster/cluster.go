// A cluster's identity: its name, its state folder and its address plan; nothing here touches the machine.
package main

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"path/filepath"
	"regexp"
)

// maxNodes keeps every pod range below the clusters' half of the plan (10.A.0.0/17).
const maxNodes = 32

// maxDir leaves room for `/NAME/node31/containerd.sock.ttrpc` in a unix socket address (108 bytes).
const maxDir = 50

var namePattern = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$`)

// Cluster names one local cluster and the folder that keeps all of its state.
type Cluster struct {
	Name string
	Dir  string
}

// NewCluster checks the name; base is the folder that holds the state folders of all clusters.
func NewCluster(name, base string) (Cluster, error) {
	if !namePattern.MatchString(name) {
		return Cluster{}, fmt.Errorf("cluster name %q: use 1 to 20 small letters, digits and dashes, starting with a letter", name)
	}
	dir, err := filepath.Abs(base)
	if err != nil {
		return Cluster{}, err
	}
	if len(dir) > maxDir {
		return Cluster{}, fmt.Errorf("state folder %s: the path is longer than %d bytes, too long for unix sockets", dir, maxDir)
	}
	return Cluster{Name: name, Dir: filepath.Join(dir, name)}, nil
}

// octet tells clusters apart by address. Two names may share one: their networks never meet, so that is only less readable.
func (c Cluster) octet() byte {
	h := fnv.New32a()
	h.Write([]byte(c.Name))
	return byte(100 + h.Sum32()%50)
}

// Network is the range of the nodes' own addresses.
func (c Cluster) Network() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, c.octet(), 255, 0}), 24)
}

// Pods is the range that holds every node's pod range.
func (c Cluster) Pods() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, c.octet(), 0, 0}), 17)
}

// Services is the range of cluster IPs; its first address is the API server's.
func (c Cluster) Services() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, c.octet() + 100, 0, 0}), 16)
}

// APIServer is the address of the API server inside the cluster's network.
func (c Cluster) APIServer() netip.AddrPort {
	return netip.AddrPortFrom(c.Node(0).Address(), 6443)
}

func (c Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

// Kubeconfig is the file for programs on the host.
func (c Cluster) Kubeconfig() string { return c.path("kubeconfig") }

// AdminKubeconfig is the file for programs inside the cluster's network.
func (c Cluster) AdminKubeconfig() string { return c.path("pki", "admin.kubeconfig") }

// Node is one member of a cluster; node 0 carries the control plane and the bridge to all others.
type Node struct {
	Cluster Cluster
	Index   int
}

// Node gives the member with this index.
func (c Cluster) Node(index int) Node { return Node{Cluster: c, Index: index} }

// Name is the node's name in Kubernetes.
func (n Node) Name() string { return fmt.Sprintf("node%d", n.Index) }

// Address is the node's own address.
func (n Node) Address() netip.Addr {
	return netip.AddrFrom4([4]byte{10, n.Cluster.octet(), 255, byte(n.Index + 1)})
}

// Pods is the range of this node's pods.
func (n Node) Pods() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n.Cluster.octet(), byte(n.Index), 0}), 24)
}

// Dir is the node's state folder.
func (n Node) Dir() string { return n.Cluster.path(n.Name()) }

// Socket is where the node's containerd listens.
func (n Node) Socket() string { return n.path("containerd.sock") }

// Cgroup is the node's group under each cgroup hierarchy.
func (n Node) Cgroup() string { return fmt.Sprintf("fortia-%s-%d", n.Cluster.Name, n.Index) }

func (n Node) path(elem ...string) string {
	return filepath.Join(append([]string{n.Dir()}, elem...)...)
}
