package main

// This file takes away what buildah leaves outside of the folders it is given; it knows nothing of images.

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// leftBehind are files whose places are fixed in buildah: no option or variable of it moves them.
var leftBehind = []string{"/etc/cni/net.d/cni.lock", "/var/lib/containers/cache/blob-info-cache-v1.boltdb"}

// traces are the files of a list, and the folders on the way to them, that are not there yet.
func traces(files []string) []string {
	var missing []string
	for _, path := range files {
		for path != "/" && path != "." {
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				break
			}
			missing = append(missing, path)
			path = filepath.Dir(path)
		}
	}
	return missing
}

// forget removes traces that have come since. A folder that holds something else by now stays.
func forget(traces []string) {
	for _, path := range traces {
		_ = os.Remove(path)
	}
}
