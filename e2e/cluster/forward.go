// Forwards: connections to the host's loopback carried to addresses inside a cluster's network.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
)

type targetKind int

const (
	targetAPIServer targetKind = iota
	targetAddress
	targetService
)

// target is an address inside the cluster, as asked for.
type target struct {
	kind                  targetKind
	address               netip.AddrPort
	namespace, name, port string
}

func (t target) String() string {
	switch t.kind {
	case targetAddress:
		return t.address.String()
	case targetService:
		return fmt.Sprintf("svc/%s/%s:%s", t.namespace, t.name, t.port)
	default:
		return "apiserver"
	}
}

// forward is one wish: a loopback port of the host (0: any) and where it leads.
type forward struct {
	port   uint16
	target target
}

func (f forward) String() string { return fmt.Sprintf("%d:%s", f.port, f.target) }

func parseForwards(args []string) ([]forward, error) {
	var forwards []forward
	for _, arg := range args {
		f, err := parseForward(arg)
		if err != nil {
			return nil, fmt.Errorf("forward %q: %w", arg, err)
		}
		forwards = append(forwards, f)
	}
	return forwards, nil
}

func parseForward(arg string) (forward, error) {
	port, rest, found := strings.Cut(arg, ":")
	number, err := strconv.ParseUint(port, 10, 16)
	if !found || err != nil {
		return forward{}, errors.New("write it as HOSTPORT:TARGET, such as 8080:svc/default/midgard-game:80")
	}
	t, err := parseTarget(rest)
	return forward{port: uint16(number), target: t}, err
}

func parseTarget(text string) (target, error) {
	if text == "apiserver" {
		return target{kind: targetAPIServer}, nil
	}
	if service, ok := strings.CutPrefix(text, "svc/"); ok {
		where, port, found := strings.Cut(service, ":")
		namespace, name, both := strings.Cut(where, "/")
		if !found || !both || namespace == "" || name == "" || port == "" || strings.ContainsAny(name+port, "/:") {
			return target{}, errors.New("write a service as svc/NAMESPACE/NAME:PORT")
		}
		return target{kind: targetService, namespace: namespace, name: name, port: port}, nil
	}
	address, err := netip.ParseAddrPort(text)
	if err != nil || address.Port() == 0 {
		return target{}, errors.New("the target is neither apiserver, nor IP:PORT, nor svc/NAMESPACE/NAME:PORT")
	}
	return target{kind: targetAddress, address: address}, nil
}

// resolver finds and remembers where a target is at the moment.
type resolver struct {
	cluster Cluster
	client  kubernetes.Interface
}

func (r resolver) resolve(ctx context.Context, t target) (string, error) {
	switch t.kind {
	case targetAddress:
		return t.address.String(), nil
	case targetService:
		return serviceAddress(ctx, r.client, t.namespace, t.name, t.port)
	default:
		return r.cluster.APIServer().String(), nil
	}
}

// serveForwards carries connections until the cluster ends. It prints a line for each forward once all listen.
func serveForwards(ctx context.Context, c Cluster, forwards []forward) error {
	init, ok := c.Node(0).init()
	if !ok {
		return fmt.Errorf("cluster %s is not up: run `fortia-cluster --name %s up`", c.Name, c.Name)
	}
	network, err := c.Node(0).network()
	if err != nil {
		return err
	}
	client, err := c.client(network)
	if err != nil {
		return err
	}
	resolver := resolver{cluster: c, client: client}
	var listeners []net.Listener
	for _, f := range forwards {
		if _, err := resolver.resolve(ctx, f.target); err != nil {
			return err
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", f.port))
		if err != nil {
			return err
		}
		listeners = append(listeners, listener)
	}
	for i, f := range forwards {
		fmt.Println(listeners[i].Addr(), f.target)
		go accept(ctx, listeners[i], carrier{network: network, resolver: resolver, target: f.target})
	}
	debug.FreeOSMemory() // what the start needed is most of this process
	fd, err := init.open()
	if err == nil {
		waitExit(fd, -1)
	}
	log.Printf("cluster %s has ended", c.Name)
	return nil
}

func accept(ctx context.Context, listener net.Listener, c carrier) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Printf("%v: %v", listener.Addr(), err)
			os.Exit(1)
		}
		go c.carry(ctx, conn)
	}
}

// carrier brings the connections of one forward to its target.
type carrier struct {
	network  *Network
	resolver resolver
	target   target
}

func (c carrier) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	address, err := c.resolver.resolve(ctx, c.target)
	if err != nil {
		return nil, err
	}
	return c.network.Dial(ctx, "tcp", address)
}

func (c carrier) carry(ctx context.Context, outside net.Conn) {
	defer outside.Close()
	inside, err := c.dial(ctx)
	if err != nil {
		log.Printf("%s: %v", c.target, err)
		return
	}
	defer inside.Close()
	back := make(chan struct{})
	go func() {
		pipe(outside, inside)
		close(back)
	}()
	pipe(inside, outside)
	<-back
}

// pipe copies one direction and passes its end on, so that half-closed connections work.
func pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from) // a broken connection shows at both ends by itself
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}
