package main

import (
	"net/netip"
	"testing"
)

func cluster(t *testing.T, name string) Cluster {
	t.Helper()
	c, err := NewCluster(name, t.TempDir()[:20])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRangesOfAClusterDoNotOverlap(t *testing.T) {
	for _, name := range []string{"fortia", "test", "a", "a-1", "midgard"} {
		c := cluster(t, name)
		for _, pair := range [][2]netip.Prefix{{c.Pods(), c.Services()}, {c.Pods(), c.Network()}, {c.Services(), c.Network()}} {
			if pair[0].Overlaps(pair[1]) {
				t.Errorf("%s: %v overlaps %v", name, pair[0], pair[1])
			}
		}
	}
}

func TestEveryNodeHasItsOwnAddressAndPodRange(t *testing.T) {
	c := cluster(t, "fortia")
	addresses, pods := map[netip.Addr]bool{}, map[netip.Prefix]bool{}
	for i := range maxNodes {
		n := c.Node(i)
		if addresses[n.Address()] || pods[n.Pods()] {
			t.Errorf("%s shares an address or a range", n.Name())
		}
		addresses[n.Address()], pods[n.Pods()] = true, true
		if !c.Network().Contains(n.Address()) || !c.Pods().Contains(n.Pods().Addr()) || !c.Pods().Overlaps(n.Pods()) {
			t.Errorf("%s lies outside of its cluster: %v, %v", n.Name(), n.Address(), n.Pods())
		}
	}
}

func TestNodesOfDifferentClustersNeverShareACgroupOrAFolder(t *testing.T) {
	a, b := cluster(t, "a"), cluster(t, "a-1")
	seen := map[string]bool{}
	for i := range maxNodes {
		for _, n := range []Node{a.Node(i), b.Node(i)} {
			if seen[n.Cgroup()] || seen[n.Dir()] {
				t.Errorf("%s %s", n.Cgroup(), n.Dir())
			}
			seen[n.Cgroup()], seen[n.Dir()] = true, true
		}
	}
}

func TestBadNamesAreRefused(t *testing.T) {
	for _, name := range []string{"", "A", "1a", "a_b", "a/b", "..", "-a", "a-", "a-name-that-is-far-too-long"} {
		if _, err := NewCluster(name, "/tmp"); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}

func TestAFolderTooLongForSocketsIsRefused(t *testing.T) {
	c, err := NewCluster("abcdefghijklmnopqrst", "/"+string(make([]byte, maxDir-1)))
	if err != nil {
		t.Fatal(err)
	}
	if longest := len(c.Node(maxNodes-1).Socket() + ".ttrpc"); longest > 107 {
		t.Errorf("a socket's path may have %d bytes", longest)
	}
	if _, err := NewCluster("a", "/"+string(make([]byte, maxDir))); err == nil {
		t.Error("a longer folder was taken")
	}
}
