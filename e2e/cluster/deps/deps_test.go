package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestOnlyPackagesThatAreNotInstalledAreMissing(t *testing.T) {
	lines := "gcc installed\nbuildah config-files\n"
	if got := missing([]string{"gcc", "buildah", "runc"}, lines); !slices.Equal(got, []string{"buildah", "runc"}) {
		t.Errorf("missing %v", got)
	}
}

func TestThePolicyAgainstServicesGoesAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy-rc.d")
	release, err := forbidServices(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Fatalf("no policy in force: %v %v", info, err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the policy is still there: %v", err)
	}
}

func TestAPolicyOfSomebodyElseStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy-rc.d")
	if err := os.WriteFile(path, []byte("theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	release, err := forbidServices(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "theirs" {
		t.Errorf("%q %v", text, err)
	}
}
