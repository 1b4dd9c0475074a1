// The node's cgroups, under version 1 (one tree per controller) and version 2 (one tree).
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// unified says whether the machine has cgroup version 2 only.
func unified() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil
}

// cgroupFolders are all places where a group of this name is or could be.
func cgroupFolders(name string) ([]string, error) {
	if unified() {
		return []string{filepath.Join(cgroupRoot, name)}, nil
	}
	trees, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, err
	}
	var folders []string
	for _, tree := range trees {
		if tree.IsDir() { // cpu,cpuacct and the like are also there as links
			folders = append(folders, filepath.Join(cgroupRoot, tree.Name(), name))
		}
	}
	return folders, nil
}

// makeCgroups makes the group that holds all of a node's pods.
func makeCgroups(n Node) error {
	if unified() {
		controllers, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, controller := range strings.Fields(string(controllers)) {
			// Some controllers cannot be handed down everywhere; the kubelet says so if it misses one.
			_ = os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte("+"+controller), 0)
		}
	}
	folders, err := cgroupFolders(n.Cgroup())
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		if filepath.Base(filepath.Dir(folder)) != "cpuset" {
			continue
		}
		// A new cpuset is empty and takes no process until it is filled.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			all, err := os.ReadFile(filepath.Join(filepath.Dir(folder), file))
			if err == nil {
				err = os.WriteFile(filepath.Join(folder, file), all, 0)
			}
			if err != nil {
				return fmt.Errorf("cgroup: %w", err)
			}
		}
	}
	return nil
}

// removeCgroups removes the node's groups. Its processes are dead, but the kernel may take a moment to let their groups go.
func removeCgroups(n Node) error {
	folders, err := cgroupFolders(n.Cgroup())
	if err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		var failed error
		for _, folder := range folders {
			failed = errors.Join(failed, removeGroup(folder))
		}
		if failed == nil || time.Now().After(deadline) {
			return failed
		}
		time.Sleep(50 * time.Millisecond) // no event tells when a group may be removed
	}
}

func removeGroup(folder string) error {
	var groups []string
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	for i := len(groups) - 1; i >= 0; i-- {
		if removal := os.Remove(groups[i]); removal != nil && !errors.Is(removal, fs.ErrNotExist) {
			err = errors.Join(err, removal)
		}
	}
	return err
}
