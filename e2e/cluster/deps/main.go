// Command deps installs the Debian packages that building and running Fortia needs, only those that are missing,
// and lets none of them start a service on this machine.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"
)

// packages by what needs them. The local cluster names its own again when one is missing (preflight.go).
var packages = []string{
	"gcc", "libc6-dev", "binutils", // linking Rust, C parts of crates, strip
	"buildah", "mmdebstrap", "debian-archive-keyring", // images
	"containerd", "runc", "containernetworking-plugins", "iptables", "conntrack", "ipset", "socat", "iproute2", "util-linux", "mount", // cluster
}

// units are the services these packages would start now and at every boot; the local cluster runs a containerd of its own.
var units = []string{"containerd.service"}

const policyFile = "/usr/sbin/policy-rc.d"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "deps:", err)
		os.Exit(1)
	}
}

func run() error {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		return fmt.Errorf("this machine is no Debian: install what these packages hold yourself: %s", strings.Join(packages, " "))
	}
	// dpkg-query ends with an error when it knows nothing of one package; what it knows of the others counts.
	output, err := exec.Command("dpkg-query", append([]string{"--show", "--showformat", "${Package} ${db:Status-Status}\n"}, packages...)...).Output()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		return err
	}
	lacking := missing(packages, string(output))
	if len(lacking) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("packages are missing; run this as root or install them: apt-get install %s", strings.Join(lacking, " "))
	}
	fmt.Println("deps: installing", strings.Join(lacking, " "))
	return install(lacking)
}

// missing lists the packages that dpkg-query's lines "package status" do not call installed.
func missing(wanted []string, lines string) []string {
	installed := map[string]bool{}
	for _, line := range strings.Split(lines, "\n") {
		if name, status, ok := strings.Cut(line, " "); ok && status == "installed" {
			installed[name] = true
		}
	}
	var lacking []string
	for _, name := range wanted {
		if !installed[name] {
			lacking = append(lacking, name)
		}
	}
	return lacking
}

func install(lacking []string) (err error) {
	release, err := forbidServices(policyFile)
	if err != nil {
		return err
	}
	// An interrupt ends apt-get, which shares the terminal; this program still has to take the policy away.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	defer func() { err = errors.Join(err, release()) }()
	if err := apt("update", "--quiet=2"); err != nil {
		return err
	}
	if err := apt(append([]string{"install", "--yes", "--quiet=2", "--no-install-recommends"}, lacking...)...); err != nil {
		return err
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil // no systemd, nothing starts at boot
	}
	for _, unit := range units {
		if strings.Contains(" "+strings.Join(lacking, " ")+" ", " "+strings.TrimSuffix(unit, ".service")+" ") {
			if err := command("systemctl", "disable", "--quiet", unit); err != nil {
				return err
			}
		}
	}
	return nil
}

// forbidServices answers "forbidden" to packages that ask whether they may start their service; a policy that
// somebody else has set stays in force. The result takes it away again.
func forbidServices(path string) (func() error, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return func() error { return nil }, nil
	} else if err != nil {
		return nil, err
	}
	_, err = file.WriteString("#!/bin/sh\nexit 101\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return func() error { return os.Remove(path) }, nil
}

func apt(args ...string) error { return command("apt-get", args...) }

func command(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}
