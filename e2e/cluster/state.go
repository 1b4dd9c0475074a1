// What is remembered about a cluster between two commands, and the lock that keeps commands on one cluster apart.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// State is written when a cluster is made; which processes live is recorded beside it.
type State struct {
	Nodes int `json:"nodes"`
	// Port is the API server's on the host's loopback; 0 means any that is free.
	Port uint16 `json:"port"`
	// Complete is set when `up` has done everything; a cluster without it is remade, not mended.
	Complete bool `json:"complete"`
}

func readState(c Cluster) (State, error) {
	var state State
	content, err := os.ReadFile(c.path("cluster.json"))
	if err == nil {
		err = json.Unmarshal(content, &state)
	}
	return state, err
}

func writeState(c Cluster, state State) error {
	content, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return replaceFile(c.path("cluster.json"), content)
}

// lock waits until no other `up`, `down` or background `forward` works on the cluster. The file goes with the lock.
func lock(c Cluster) (unlock func(), err error) {
	path := c.Dir + ".lock"
	for {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		held, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if os.IsNotExist(err) { // the folder went away in between
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
			held.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if same(held, path) {
			return func() {
				os.Remove(path)
				held.Close()
				os.Remove(filepath.Dir(path)) // stays unless it is empty
			}, nil
		}
		held.Close() // the former holder has removed the file while we waited
	}
}

func same(held *os.File, path string) bool {
	mine, err := held.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(mine, there)
}
