package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWhatWasNotThereBeforeIsRemovedWithItsFoldersAndNothingElse(t *testing.T) {
	root := t.TempDir()
	file := func(elem ...string) string { return filepath.Join(append([]string{root}, elem...)...) }
	write := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(file("etc", "there.lock"))
	files := []string{file("etc", "there.lock"), file("etc", "cni", "net.d", "cni.lock"), file("var", "cache", "blobs")}
	before := traces(files)
	for _, path := range files {
		write(path)
	}
	write(file("var", "somebody's"))
	forget(before)
	for path, stays := range map[string]bool{files[0]: true, file("etc", "cni"): false, files[2]: false, file("var", "cache"): false, file("var", "somebody's"): true} {
		if _, err := os.Lstat(path); (err == nil) != stays {
			t.Errorf("%s: there %v, wanted %v", path, err == nil, stays)
		}
	}
}
