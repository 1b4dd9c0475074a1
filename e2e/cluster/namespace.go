// Work inside a cluster's network namespace from a program that stays outside of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// Network is an open network namespace; it cannot turn into another one, whatever becomes of its processes.
type Network struct {
	fd int
}

// network opens the namespace of a node that runs.
func (n Node) network() (*Network, error) {
	init, ok := n.init()
	if !ok || !init.alive() {
		return nil, fmt.Errorf("cluster %s: %s does not run: %w", n.Cluster.Name, n.Name(), fs.ErrNotExist)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", init.PID), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("network of %s: %w", n.Name(), err)
	}
	return &Network{fd: fd}, nil
}

// Close lets the namespace go.
func (w *Network) Close() error { return unix.Close(w.fd) }

// do runs f on a thread inside the namespace; the thread ends with it, so nothing else ever runs there by mistake.
func (w *Network) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(w.fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Dial connects from inside the namespace. The address must be numeric: names would be looked up on other threads.
func (w *Network) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil {
		return nil, errors.New("dial inside the cluster: not a numeric address: " + address)
	}
	var conn net.Conn
	err = w.do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
