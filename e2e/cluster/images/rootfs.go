package main

// This file makes root file systems of Debian packages: it knows what to take, what to leave out, and when one is still good.

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// rootfs is a root file system unpacked from Debian packages, never configured: no maintainer script runs.
type rootfs struct {
	name     string
	suite    string
	packages []string
	// keep decides for each path (no leading slash) that is not a folder.
	keep func(path string) bool
	// recipe changes when keep does, so that an older result is made anew.
	recipe string
}

func serviceBase(suite string) rootfs {
	return rootfs{name: "base", suite: suite, packages: []string{"libc6", "libgcc-s1"}, keep: keepLibraries, recipe: "4"}
}

// valkeyBase is Debian 13's: Debian 12 has no Valkey. Its C library comes with it, so the release of this machine is no matter.
func valkeyBase() rootfs {
	return rootfs{name: "valkey", suite: "trixie", packages: []string{"valkey-server", "valkey-tools"}, recipe: "4", keep: func(path string) bool {
		return keepLibraries(path) || strings.HasPrefix(path, "usr/bin/valkey-")
	}}
}

// neverLoaded are plugins of programs that no image has.
var neverLoaded = []string{"/gconv/", "/perl", "/security/", "/engines-"}

// keepLibraries keeps shared libraries, the loader and the licences: no shell, no package manager, nothing to run.
func keepLibraries(path string) bool {
	if strings.HasPrefix(path, "usr/share/doc/") {
		return filepath.Base(path) == "copyright"
	}
	library := strings.HasPrefix(path, "lib/") || strings.HasPrefix(path, "lib64/") || strings.HasPrefix(path, "usr/lib/") || strings.HasPrefix(path, "usr/lib64/")
	return library && strings.Contains(filepath.Base(path), ".so") && !slices.ContainsFunc(neverLoaded, func(part string) bool { return strings.Contains(path, part) })
}

// key is the content of the stamp: equal keys mean equal root file systems.
func (r rootfs) key() string { return fmt.Sprintf("%s %v %s", r.suite, r.packages, r.recipe) }

// make gives the folder of the root file system, unpacking it when there is none of this recipe.
func (r rootfs) make(out string) (string, error) {
	dir, stamp := filepath.Join(out, "rootfs", r.name), filepath.Join(out, "rootfs", r.name+".stamp")
	if old, err := os.ReadFile(stamp); err == nil && string(old) == r.key() {
		return dir, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	fmt.Printf("images: unpacking %s from Debian %s\n", strings.Join(r.packages, ", "), r.suite)
	if err := command("mmdebstrap", "--quiet", "--variant=extract", "--include="+strings.Join(r.packages, ","), r.suite, dir); err != nil {
		return "", err
	}
	if err := prune(dir, r.keep); err != nil {
		return "", err
	}
	if err := complete(dir); err != nil {
		return "", err
	}
	return dir, os.WriteFile(stamp, []byte(r.key()), 0o644)
}

// prune removes every file that keep refuses, and then every empty folder.
func prune(dir string, keep func(string) bool) error {
	var folders []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		if entry.IsDir() {
			folders = append(folders, path)
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || keep(name) {
			return err
		}
		return os.Remove(path)
	})
	if err != nil {
		return err
	}
	for i := len(folders) - 1; i >= 0; i-- {
		if entries, err := os.ReadDir(folders[i]); err != nil {
			return err
		} else if len(entries) == 0 {
			if err := os.Remove(folders[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// complete adds what packages only make when they are configured: the links of the merged /usr, the user, a place for temporary files.
func complete(dir string) error {
	for _, name := range []string{"lib", "lib64"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); os.IsNotExist(err) {
			if err := os.Symlink("usr/"+name, filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		return err
	}
	for path, text := range map[string]string{
		"etc/passwd":        "root:x:0:0:root:/:/nonexistent\nfortia:x:65532:65532:fortia:/:/nonexistent\n",
		"etc/group":         "root:x:0:\nfortia:x:65532:\n",
		"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			return err
		}
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	return os.Chmod(tmp, 0o777|fs.ModeSticky)
}

// codename is this machine's Debian release.
func codename(osRelease string) (string, error) {
	debian, name := false, ""
	for _, line := range strings.Split(osRelease, "\n") {
		field, value, _ := strings.Cut(line, "=")
		value = strings.Trim(value, `"`)
		switch field {
		case "ID":
			debian = value == "debian"
		case "VERSION_CODENAME":
			name = value
		}
	}
	if !debian || name == "" {
		return "", fmt.Errorf("this machine is no Debian: give --suite, the Debian release whose C library is not older than the one the programs were built with")
	}
	return name, nil
}
