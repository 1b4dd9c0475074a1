package main

import (
	"errors"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestACommandWithBracketsAndSpacesDoesNotConfuseIdentity(t *testing.T) {
	line := "42 (a ) b (c) S 1 " + strings.Repeat("0 ", 17) + "777 5 6"
	state, started, err := parseStat(line)
	if err != nil || state != 'S' || started != 777 {
		t.Errorf("%c %d %v", state, started, err)
	}
	for _, bad := range []string{"", "42 (a", "42 (a) S 1 2", "42 (a) S " + strings.Repeat("x ", 30)} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func sleeper(t *testing.T) (*exec.Cmd, Process) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, p
}

func TestARecordedProcessIsEnded(t *testing.T) {
	cmd, p := sleeper(t)
	path := filepath.Join(t.TempDir(), "p.json")
	if err := writeProcess(path, p); err != nil {
		t.Fatal(err)
	}
	recorded, ok := readProcess(path)
	if !ok || recorded != p || !recorded.alive() {
		t.Fatalf("%v %v", recorded, ok)
	}
	if err := recorded.end(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := recorded.end(); err != nil {
		t.Errorf("ending it again: %v", err)
	}
}

func TestAReusedPidIsLeftAlone(t *testing.T) {
	_, p := sleeper(t)
	former := Process{PID: p.PID, Started: p.Started - 1}
	if err := former.end(); err != nil {
		t.Fatal(err)
	}
	if _, err := former.open(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if !p.alive() {
		t.Error("the other process was killed")
	}
}

func TestATornRecordNamesNoOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.json")
	for _, content := range []string{"", "{", `{"pid":1,"started":1}`, `{"pid":0}`} {
		if err := replaceFile(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if p, ok := readProcess(path); ok {
			t.Errorf("%q names %v", content, p)
		}
	}
}
