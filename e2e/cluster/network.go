// The cluster's network: a bridge in node 0's namespace, one link per other node, routes between the pod ranges, no way out.
package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bridgeName carries node 0's address, which is also the API server's and the name server's.
const bridgeName = "nodes"

// linkName is node's end of its link in node 0's namespace; cutting it cuts the node off.
func linkName(n Node) string { return "to-" + n.Name() }

// handle talks to the kernel about the links and routes of one node.
func (n Node) handle() (*netlink.Handle, *Network, error) {
	network, err := n.network()
	if err != nil {
		return nil, nil, err
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(network.fd))
	if err != nil {
		network.Close()
		return nil, nil, err
	}
	return h, network, nil
}

// connectFirst sets up node 0: loopback and the bridge. The default route keeps service addresses routable; nothing is behind it.
func connectFirst(first Node) error {
	h, network, err := first.handle()
	if err != nil {
		return err
	}
	defer network.Close()
	defer h.Close()
	attributes := netlink.NewLinkAttrs()
	attributes.Name = bridgeName
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	bridge, err := raise(h, first, bridgeName)
	if err != nil {
		return err
	}
	return addRoute(h, &netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Scope: unix.RT_SCOPE_LINK})
}

// connect joins a further node to the bridge and teaches it and its elders the ways to each other's pods.
func connect(n Node) error {
	first := n.Cluster.Node(0)
	hub, hubNetwork, err := first.handle()
	if err != nil {
		return err
	}
	defer hubNetwork.Close()
	defer hub.Close()
	h, network, err := n.handle()
	if err != nil {
		return err
	}
	defer network.Close()
	defer h.Close()
	bridge, err := hub.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MasterIndex = linkName(n), bridge.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsFd(network.fd)}
	if err := hub.LinkAdd(veth); err != nil {
		return fmt.Errorf("link of %s: %w", n.Name(), err)
	}
	if err := setLink(hub, linkName(n), true); err != nil {
		return err
	}
	if _, err := raise(h, n, "eth0"); err != nil {
		return err
	}
	if err := addRoute(h, via("0.0.0.0/0", first.Address())); err != nil {
		return err
	}
	for i := range n.Index {
		if err := connectPods(n, n.Cluster.Node(i), h); err != nil {
			return err
		}
	}
	return nil
}

// connectPods makes routes both ways between the pods of n and those of an elder node.
func connectPods(n, elder Node, h *netlink.Handle) error {
	if err := addRoute(h, via(elder.Pods().String(), elder.Address())); err != nil {
		return err
	}
	other, network, err := elder.handle()
	if err != nil {
		return err
	}
	defer network.Close()
	defer other.Close()
	return addRoute(other, via(n.Pods().String(), n.Address()))
}

// raise brings loopback and the named link up and puts the node's address on that link.
func raise(h *netlink.Handle, n Node, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("link %s of %s: %w", name, n.Name(), err)
	}
	address := netip.PrefixFrom(n.Address(), n.Cluster.Network().Bits())
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: n.Address().AsSlice(), Mask: ipNet(address).Mask}}); err != nil {
		return nil, fmt.Errorf("address of %s: %w", n.Name(), err)
	}
	return link, errors.Join(setLink(h, "lo", true), setLink(h, name, true))
}

func setLink(h *netlink.Handle, name string, up bool) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if up {
		return h.LinkSetUp(link)
	}
	return h.LinkSetDown(link)
}

func via(destination string, gateway netip.Addr) *netlink.Route {
	return &netlink.Route{Dst: ipNet(netip.MustParsePrefix(destination)), Gw: gateway.AsSlice()}
}

func addRoute(h *netlink.Handle, route *netlink.Route) error {
	if err := h.RouteAdd(route); err != nil {
		return fmt.Errorf("route to %s: %w", route.Dst, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// setPartition cuts a node off from all others, or joins it again.
func setPartition(n Node, cut bool) error {
	if n.Index == 0 {
		return errors.New("node 0 carries the control plane and the bridge: it cannot be cut off, name another node")
	}
	h, network, err := n.Cluster.Node(0).handle()
	if err != nil {
		return err
	}
	defer network.Close()
	defer h.Close()
	return setLink(h, linkName(n), !cut)
}
