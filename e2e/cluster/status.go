// What of a cluster runs, as a person wants to see it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// status prints nodes, processes and forwards; it fails when the cluster is not healthy.
func status(ctx context.Context, c Cluster) error {
	state, err := readState(c)
	if err != nil {
		return fmt.Errorf("cluster %s is not up", c.Name)
	}
	total := 0
	for i := range state.Nodes {
		n := c.Node(i)
		fmt.Printf("%s  address %s  pods %s\n", n.Name(), n.Address(), n.Pods())
		processes, err := nodeProcesses(n)
		if err != nil {
			return err
		}
		for _, p := range processes {
			fmt.Printf("  %8d  %6.1f MB  %s\n", p.pid, float64(p.kilobytes)/1024, p.name)
			total += p.kilobytes
		}
	}
	forwards, err := readBackground(c)
	if err != nil {
		return err
	}
	for _, process := range forwards {
		kilobytes := proportionalMemory(process.Process.PID)
		total += kilobytes
		for _, f := range process.Open {
			fmt.Printf("forward  127.0.0.1:%d to %s  (pid %d, %.1f MB)\n", f.Port, f.Target, process.Process.PID, float64(kilobytes)/1024)
		}
	}
	fmt.Printf("memory of the cluster without its pods: %.0f MB, shared pages counted once\nKUBECONFIG=%s\n", float64(total)/1024, c.Kubeconfig())
	if err := health(ctx, c, state); err != nil {
		return fmt.Errorf("not healthy: %w", err)
	}
	fmt.Println("healthy")
	return nil
}

type runningProcess struct {
	pid, kilobytes int
	name           string
}

// nodeProcesses lists the processes in a node's own pid namespace; those of pods have namespaces of their own.
func nodeProcesses(n Node) ([]runningProcess, error) {
	init, ok := n.init()
	if !ok || !init.alive() {
		return nil, nil
	}
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", init.PID))
	if err != nil {
		return nil, err
	}
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var all []runningProcess
	for _, folder := range folders {
		if link, err := os.Readlink(filepath.Join(folder, "ns", "pid")); err != nil || link != namespace {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			return nil, err
		}
		line, err := os.ReadFile(filepath.Join(folder, "cmdline"))
		if errors.Is(err, os.ErrNotExist) || len(line) == 0 {
			continue // it has just ended
		}
		if err != nil {
			return nil, err
		}
		name, _, _ := strings.Cut(string(line), "\x00")
		all = append(all, runningProcess{pid: pid, kilobytes: proportionalMemory(pid), name: filepath.Base(name)})
	}
	return all, nil
}

// proportionalMemory is the memory of a process in kB, where a page shared by n processes counts as 1/n.
func proportionalMemory(pid int) int {
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(rollup)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kilobytes, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kilobytes
		}
	}
	return 0
}
