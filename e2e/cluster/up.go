// Bringing a cluster up, step by step, until it answers.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
)

// upTimeout bounds each step; the whole takes seconds on an idle machine.
const upTimeout = 3 * time.Minute

// recoveryTimeout is what a running cluster gets to become healthy before it counts as broken.
const recoveryTimeout = 20 * time.Second

type upOptions struct {
	nodes int    // 0: as many as there were, or one
	port  uint16 // 0: the port as it was, or any
}

// up makes sure that a healthy cluster runs.
func up(ctx context.Context, c Cluster, options upOptions) error {
	if options.nodes < 0 || options.nodes > maxNodes {
		return fmt.Errorf("--nodes %d: a cluster has 1 to %d nodes", options.nodes, maxNodes)
	}
	if err := preflight(); err != nil {
		return err
	}
	unlock, err := lock(c)
	if err != nil {
		return err
	}
	defer unlock()
	if state, err := readState(c); err == nil {
		if err := recovered(ctx, c, state); err == nil {
			return keep(c, state, options)
		} else {
			fmt.Printf("cluster %s is broken (%v): starting anew\n", c.Name, err)
		}
		if options.nodes == 0 {
			options.nodes = state.Nodes
		}
	}
	if err := remove(c); err != nil {
		return err
	}
	if err := create(ctx, c, options); err != nil {
		return fmt.Errorf("%w\nlogs are in %s, `fortia-cluster --name %s down` cleans up", err, c.path("node*", "logs"), c.Name)
	}
	return nil
}

// keep leaves a healthy cluster alone, but for a lost way from the host to its API server.
func keep(c Cluster, state State, options upOptions) error {
	if options.nodes != 0 && options.nodes != state.Nodes {
		return fmt.Errorf("cluster %s runs with %d nodes, not %d: run `down` first", c.Name, state.Nodes, options.nodes)
	}
	if options.port != 0 {
		state.Port = options.port
	}
	err := openAPIServer(c, state)
	if err != nil && options.port == 0 { // the port that it had has gone to someone else
		state.Port = 0
		err = openAPIServer(c, state)
	}
	if err != nil {
		return err
	}
	fmt.Printf("cluster %s is already up with %d node(s)\nKUBECONFIG=%s\n", c.Name, state.Nodes, c.Kubeconfig())
	return nil
}

// recovered gives a cluster whose nodes live the time to become healthy: their programs are started again when they end.
func recovered(ctx context.Context, c Cluster, state State) error {
	if !state.Complete {
		return errors.New("an `up` was interrupted")
	}
	if err := alive(c, state); err != nil {
		return err
	}
	return poll(ctx, recoveryTimeout, "healthy", func(ctx context.Context) error { return health(ctx, c, state) })
}

// alive fails when a node has ended; it does not come back.
func alive(c Cluster, state State) error {
	for i := range state.Nodes {
		if init, ok := c.Node(i).init(); !ok || !init.alive() {
			return fmt.Errorf("%s is dead", c.Node(i).Name())
		}
	}
	return nil
}

// health fails unless every node runs, the API server and the name server answer, and all nodes are Ready.
func health(ctx context.Context, c Cluster, state State) error {
	if err := alive(c, state); err != nil {
		return err
	}
	network, err := c.Node(0).network()
	if err != nil {
		return err
	}
	defer network.Close()
	client, err := c.client(network)
	if err != nil {
		return err
	}
	return errors.Join(nodesReady(ctx, client, state.Nodes), dnsAnswers(ctx, c, network))
}

// create makes a cluster where there is none.
func create(ctx context.Context, c Cluster, options upOptions) error {
	begin := time.Now()
	say := func(format string, args ...any) {
		fmt.Printf("%5.1f s  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
	state := State{Nodes: max(options.nodes, 1), Port: options.port}
	if err := prepare(c, state); err != nil {
		return err
	}
	if err := startNodes(c, state.Nodes); err != nil {
		return err
	}
	say("%d node(s) started, in a network without a way out", state.Nodes)
	network, err := c.Node(0).network()
	if err != nil {
		return err
	}
	defer network.Close()
	client, err := c.client(network)
	if err != nil {
		return err
	}
	if err := poll(ctx, upTimeout, "API server", func(ctx context.Context) error { return apiReady(ctx, client) }); err != nil {
		return err
	}
	say("API server answers")
	if err := furnish(ctx, c, client, state); err != nil {
		return err
	}
	say("pods, volumes and service accounts can be made")
	if err := poll(ctx, upTimeout, "nodes", func(ctx context.Context) error { return nodesReady(ctx, client, state.Nodes) }); err != nil {
		return err
	}
	say("all nodes are Ready")
	if err := poll(ctx, upTimeout, "name server", func(ctx context.Context) error { return dnsAnswers(ctx, c, network) }); err != nil {
		return err
	}
	say("DNS answers")
	if err := openAPIServer(c, state); err != nil {
		return err
	}
	say("cluster %s is up", c.Name)
	fmt.Printf("KUBECONFIG=%s\n", c.Kubeconfig())
	return nil
}

// prepare writes everything that the nodes read.
func prepare(c Cluster, state State) error {
	for _, folder := range []string{"pki", "volumes", "forwards"} {
		if err := os.MkdirAll(c.path(folder), 0o755); err != nil {
			return err
		}
	}
	if err := writeState(c, state); err != nil {
		return err
	}
	program, err := pauseProgram()
	if err != nil {
		return err
	}
	archive, err := imageArchive(pauseImage, "pause", program)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("pause.tar"), archive, 0o644); err != nil {
		return err
	}
	for i := range state.Nodes {
		if err := errors.Join(writeConfigs(c.Node(i)), makeCgroups(c.Node(i))); err != nil {
			return err
		}
	}
	return writeCertificates(c, state.Nodes)
}

// startNodes starts all nodes, joins their networks, and only then lets them start their programs.
func startNodes(c Cluster, nodes int) error {
	var waiting []*starting
	defer func() { // a node that was not released ends by itself
		for _, s := range waiting {
			s.pipe.Close()
		}
	}()
	for i := range nodes {
		n := c.Node(i)
		s, err := n.start()
		if err != nil {
			return err
		}
		waiting = append(waiting, s)
		if i == 0 {
			err = connectFirst(n)
		} else {
			err = connect(n)
		}
		if err != nil {
			return err
		}
	}
	for _, s := range waiting {
		if err := s.release(); err != nil {
			return fmt.Errorf("release %s: %w", s.node.Name(), err)
		}
	}
	return nil
}

// furnish makes what pods need from the start: the pause image, the default storage class, the default account.
func furnish(ctx context.Context, c Cluster, client kubernetes.Interface, state State) error {
	nodes := make([]Node, state.Nodes)
	for i := range nodes {
		nodes[i] = c.Node(i)
		if err := poll(ctx, upTimeout, "containerd of "+nodes[i].Name(), func(context.Context) error { _, err := os.Stat(c.Node(i).Socket()); return err }); err != nil {
			return err
		}
	}
	if _, err := importArchive(nodes, c.path("pause.tar")); err != nil {
		return err
	}
	return errors.Join(
		poll(ctx, upTimeout, "storage class", func(ctx context.Context) error { return createStorageClass(ctx, client) }),
		poll(ctx, upTimeout, "default service account", func(ctx context.Context) error { return accountExists(ctx, client) }))
}

// openAPIServer makes the API server reachable from the host and writes the host's kubeconfig, which completes a cluster.
func openAPIServer(c Cluster, state State) error {
	opened, err := ensureForwards(c, []forward{{port: state.Port, target: target{kind: targetAPIServer}}})
	if err != nil {
		return err
	}
	if err := writeHostKubeconfig(c, fmt.Sprintf("127.0.0.1:%d", opened[0].Port)); err != nil {
		return err
	}
	state.Port, state.Complete = opened[0].Port, true
	return writeState(c, state)
}
