// What the machine must offer, and what to do when it does not.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// needs maps each file or command that nodes use to the Debian package that brings it.
var needs = map[string]string{
	"containerd":              "containerd",
	"ctr":                     "containerd",
	"containerd-shim-runc-v2": "containerd",
	"runc":                    "runc",
	"/usr/lib/cni/bridge":     "containernetworking-plugins",
	"/usr/lib/cni/host-local": "containernetworking-plugins",
	"/usr/lib/cni/loopback":   "containernetworking-plugins",
	"/usr/lib/cni/portmap":    "containernetworking-plugins",
	"iptables":                "iptables",
	"iptables-restore":        "iptables",
	"mount":                   "mount",
	"nsenter":                 "util-linux",
}

// findSystemPrograms adds the folders of system programs, which a shell made by plain su does not look into.
func findSystemPrograms() error {
	return os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
}

// preflight fails with what to do when the machine cannot run a cluster.
func preflight() error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs namespaces and cgroups: run this as root (sudo)")
	}
	if err := findSystemPrograms(); err != nil {
		return err
	}
	if missing := missingPackages(needs, func(command string) bool { _, err := exec.LookPath(command); return err == nil }); len(missing) > 0 {
		return fmt.Errorf("programs are missing, install them with:\n  apt-get install -y --no-install-recommends %s", strings.Join(missing, " "))
	}
	if _, err := os.Stat(cgroupRoot); err != nil {
		return fmt.Errorf("no cgroups on this machine: %w", err)
	}
	return nil
}

// missingPackages lists the packages to install, each once.
func missingPackages(needs map[string]string, found func(string) bool) []string {
	var missing []string
	for command, name := range needs {
		if !found(command) {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}
