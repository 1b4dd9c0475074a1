package main

import (
	"slices"
	"testing"
)

func TestEachMissingPackageIsNamedOnce(t *testing.T) {
	found := func(command string) bool { return command != "ctr" && command != "containerd" && command != "runc" }
	if missing := missingPackages(needs, found); !slices.Equal(missing, []string{"containerd", "runc"}) {
		t.Errorf("%v", missing)
	}
	if missing := missingPackages(needs, func(string) bool { return true }); len(missing) != 0 {
		t.Errorf("%v", missing)
	}
}
