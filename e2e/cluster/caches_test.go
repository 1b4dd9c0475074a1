package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClientsOfAClusterKeepTheirCachesInItsFolderAndLeaveWhatTheUserSet(t *testing.T) {
	for variable := range cacheFolders {
		t.Setenv(variable, "")
	}
	t.Setenv("HELM_DATA_HOME", "/mine")
	c := Cluster{Name: "caches", Dir: filepath.Join(t.TempDir(), "caches")}
	if set, err := keepCaches(c); err != nil || set || os.Getenv("KUBECACHEDIR") != "" {
		t.Fatalf("a cluster that is not up has no folder to keep anything in: %v", err)
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if set, err := keepCaches(c); err != nil || !set {
		t.Fatal(set, err)
	}
	if set, err := keepCaches(c); err != nil || set {
		t.Errorf("the second time all are set already: %v %v", set, err)
	}
	for variable := range cacheFolders {
		value := os.Getenv(variable)
		if variable == "HELM_DATA_HOME" {
			if value != "/mine" {
				t.Errorf("%s is %q, the user set it to /mine", variable, value)
			}
		} else if !strings.HasPrefix(value, c.Dir+"/") {
			t.Errorf("%s is %q, not below %s", variable, value, c.Dir)
		}
	}
}
