package main

// This file makes one image with buildah: it knows what goes into it and when the one of before is still good.

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

type builder struct{ bins, out, suite string }

// recipe changes when images are made differently from the same parts.
const recipe = "3"

func (b *builder) layout() string { return filepath.Join(b.out, "oci") }

// image makes the image if its parts changed, and tells whether it did.
func (b *builder) image(name string) (bool, error) {
	if name == "valkey" {
		return b.valkey()
	}
	if !slices.Contains(services, name) {
		return false, fmt.Errorf("there is no such image: choose from %s valkey", strings.Join(services, " "))
	}
	return b.service(name)
}

func (b *builder) service(name string) (bool, error) {
	base, err := b.base()
	if err != nil {
		return false, err
	}
	program := filepath.Join(b.bins, "fortia-"+name)
	sum, err := contentHash(program)
	if errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("%s is not there: run `cargo build --workspace --bins`", program)
	} else if err != nil {
		return false, err
	}
	key := strings.Join([]string{recipe, base.key(), sum}, "\n")
	if b.fresh(name, key) {
		return false, nil
	}
	root, err := base.make(b.out)
	if err != nil {
		return false, err
	}
	if err := fits(program, root); err != nil {
		return false, err
	}
	if program, err = b.lean(program); err != nil {
		return false, err
	}
	if err := b.baseImage(base, root); err != nil {
		return false, err
	}
	entrypoint := "/usr/bin/fortia-" + name
	return true, b.commit(name, key, prefix+"base"+tag, program, entrypoint, `["`+entrypoint+`"]`)
}

func (b *builder) valkey() (bool, error) {
	base := valkeyBase()
	key := strings.Join([]string{recipe, base.key()}, "\n")
	if b.fresh("valkey", key) {
		return false, nil
	}
	root, err := base.make(b.out)
	if err != nil {
		return false, err
	}
	return true, b.commit("valkey", key, "scratch", root, "/", `["/usr/bin/valkey-server"]`)
}

// launchers writes scripts that run the Valkey of the image, its client and its benchmark outside of it, with the C
// library they came with: tests and benches then use the very engine that clusters use, and nothing is installed on this
// machine.
func (b *builder) launchers(folder string) error {
	root := filepath.Join(b.out, "rootfs", "valkey")
	loaders, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu/ld-linux-*.so.*"))
	if err != nil || len(loaders) == 0 {
		return err // no Valkey was asked for yet
	}
	for _, name := range []string{"valkey-server", "valkey-cli", "valkey-benchmark"} {
		text := fmt.Sprintf("#!/bin/sh\nexec '%s' --library-path '%s' --argv0 %s '%s' \"$@\"\n",
			loaders[0], filepath.Dir(loaders[0]), name, filepath.Join(root, "usr/bin", name))
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) base() (rootfs, error) {
	if b.suite == "" {
		text, err := os.ReadFile("/etc/os-release")
		if err != nil {
			return rootfs{}, err
		}
		if b.suite, err = codename(string(text)); err != nil {
			return rootfs{}, err
		}
	}
	return serviceBase(b.suite), nil
}

// baseImage makes the image that all services share as their first layer.
func (b *builder) baseImage(base rootfs, root string) error {
	key := recipe + "\n" + base.key()
	if b.stamped("base", key) && b.buildah("inspect", "--type", "image", "--format", "{{.FromImageID}}", prefix+"base"+tag) == nil {
		return nil
	}
	if err := b.assemble("base", "scratch", root, "/", "[]"); err != nil {
		return err
	}
	return b.stamp("base", key)
}

// commit makes the image and puts it into the OCI layout.
func (b *builder) commit(name, key, from, source, target, entrypoint string) error {
	if err := b.assemble(name, from, source, target, entrypoint); err != nil {
		return err
	}
	if err := b.buildah("push", "--quiet", prefix+name+tag, "oci:"+b.layout()+":"+prefix+name+tag); err != nil {
		return err
	}
	if from != "scratch" {
		// What is in the layout is needed no more; the store would keep a copy for every build.
		if err := b.buildah("rmi", "--force", prefix+name+tag); err != nil {
			return err
		}
	}
	return b.stamp(name, key)
}

// assemble makes one image in buildah's store. Equal parts give equal digests: owners and times are fixed.
func (b *builder) assemble(name, from, source, target, entrypoint string) error {
	work := "fortia-" + name
	_ = b.buildahQuiet("rm", work) // left by a build that was ended half-way
	steps := [][]string{
		{"from", "--quiet", "--pull-never", "--name", work, from},
		{"copy", "--quiet", "--chown", "0:0", work, source, target},
		{"config", "--user", user, "--workingdir", "/", "--entrypoint", entrypoint, "--cmd", "", work},
		{"commit", "--quiet", "--rm", "--timestamp", "0", work, prefix + name + tag},
	}
	for _, step := range steps {
		if err := b.buildah(step...); err != nil {
			return err
		}
	}
	return nil
}

// lean gives the program as it goes into the image: with the names of functions, without line tables. Those are three
// quarters of it (50 MB against 12), and packing and unpacking them for every image costs more than they tell: a panic
// names its own line without them.
func (b *builder) lean(program string) (string, error) {
	stripped := filepath.Join(b.out, "stripped", filepath.Base(program))
	if err := os.MkdirAll(filepath.Dir(stripped), 0o755); err != nil {
		return "", err
	}
	return stripped, command("strip", "--strip-debug", "-o", stripped, program)
}

// fits refuses a program that would not start on the root file system for want of a library.
func fits(program, root string) error {
	file, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer file.Close()
	needed, err := file.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, library := range needed {
		found := 0
		for _, pattern := range []string{"lib/*-linux-gnu/", "usr/lib/*-linux-gnu/", "lib64/"} {
			matches, err := filepath.Glob(filepath.Join(root, pattern+library))
			if err != nil {
				return err
			}
			found += len(matches)
		}
		if found == 0 {
			return fmt.Errorf("%s needs %s, which the base image lacks: add its Debian package to serviceBase", program, library)
		}
	}
	return nil
}

func (b *builder) fresh(name, key string) bool {
	return b.stamped(name, key) && inLayout(b.layout(), prefix+name+tag)
}

func (b *builder) stampFile(name string) string { return filepath.Join(b.out, "stamps", name) }

func (b *builder) stamped(name, key string) bool {
	old, err := os.ReadFile(b.stampFile(name))
	return err == nil && string(old) == key
}

func (b *builder) stamp(name, key string) error {
	if err := os.MkdirAll(filepath.Join(b.out, "stamps"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(b.stampFile(name), []byte(key), 0o644)
}

func (b *builder) buildah(args ...string) error { return command("buildah", b.inStore(args)...) }

func (b *builder) buildahQuiet(args ...string) error {
	return exec.Command("buildah", b.inStore(args)...).Run()
}

// inStore keeps buildah in a store of its own, so that the machine's is never touched and removing the folder removes all.
func (b *builder) inStore(args []string) []string {
	return append([]string{"--storage-driver", "vfs", "--root", filepath.Join(b.out, "store"), "--runroot", filepath.Join(b.out, "run")}, args...)
}

// command runs a program; what it printed is part of the error.
func command(name string, args ...string) error {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("%s is not installed: run `make deps`", name)
	}
	output, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}

func contentHash(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
