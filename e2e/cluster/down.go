// Ending a cluster: its processes, its cgroups and its folder, however much of it is left.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// down ends the cluster; one that is not there is fine.
func down(c Cluster) error {
	if os.Geteuid() != 0 {
		return errors.New("run this as root (sudo)")
	}
	_, err := os.Stat(c.Dir)
	there := !errors.Is(err, fs.ErrNotExist)
	unlock, err := lock(c)
	if err != nil {
		return err
	}
	defer unlock()
	if err := remove(c); err != nil {
		return err
	}
	if there {
		fmt.Printf("cluster %s is down\n", c.Name)
	} else {
		fmt.Printf("cluster %s was not up\n", c.Name)
	}
	return nil
}

// remove ends and deletes everything of the cluster. With a node's first process, the kernel ends all others of the node,
// and with them go their mounts and networks.
func remove(c Cluster) error {
	forwards, err := readBackground(c)
	if err != nil {
		return err
	}
	for _, f := range forwards {
		err = errors.Join(err, f.Process.end())
	}
	for i := range maxNodes {
		n := c.Node(i)
		if init, ok := n.init(); ok {
			err = errors.Join(err, init.end())
		}
	}
	if err != nil {
		return err
	}
	for i := range maxNodes {
		err = errors.Join(err, removeCgroups(c.Node(i)))
	}
	if err != nil {
		return err
	}
	// Nothing is mounted here as seen from the host. If something is all the same, deleting could reach beyond the folder.
	if mounts, err := mountsBelow(c.Dir); err != nil || len(mounts) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not deleted, something is mounted there: %s", c.Dir, strings.Join(mounts, " ")))
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		return err
	}
	return removeHostFolders()
}

func mountsBelow(dir string) ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var below []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			below = append(below, fields[4])
		}
	}
	return below, nil
}

// removeHostFolders removes the mount points that nodes need, if they are empty and no node of any cluster uses them.
func removeHostFolders() error {
	inUse, err := anyNodeRuns()
	if err != nil || inUse {
		return err
	}
	for folder := range hostFolders {
		_ = os.Remove(folder) // one that holds something belongs to someone else
	}
	return nil
}

func anyNodeRuns() (bool, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return false, err
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		if args := strings.Split(string(line), "\x00"); len(args) > 5 && args[0] == "fortia-cluster" && args[5] == "node" {
			return true, nil
		}
	}
	return false, nil
}
