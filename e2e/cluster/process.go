// Processes by identity: a pid together with the time it started, so that a reused pid is never mistaken for ours.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Process is one process of this machine, now or in the past.
type Process struct {
	PID int `json:"pid"`
	// Started is in clock ticks since the machine booted.
	Started uint64 `json:"started"`
}

// identify records who runs under pid.
func identify(pid int) (Process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, err
	}
	_, started, err := parseStat(string(stat))
	return Process{PID: pid, Started: started}, err
}

// parseStat reads the state letter and the start time of a /proc/PID/stat line; the command in it may hold any character.
func parseStat(line string) (state byte, started uint64, err error) {
	end := strings.LastIndexByte(line, ')')
	if end < 0 {
		return 0, 0, fmt.Errorf("no command in stat line %q", line)
	}
	fields := strings.Fields(line[end+1:])
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("stat line %q is too short", line)
	}
	started, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], started, err
}

// alive says whether this very process still runs.
func (p Process) alive() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return false
	}
	state, started, err := parseStat(string(stat))
	return err == nil && started == p.Started && state != 'Z' && state != 'X'
}

// open returns a descriptor that stands for this very process, or fs.ErrNotExist when it is gone.
func (p Process) open() (int, error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, fs.ErrNotExist
	}
	if err != nil {
		return -1, err
	}
	if !p.alive() {
		unix.Close(fd)
		return -1, fs.ErrNotExist
	}
	return fd, nil
}

// end kills the process and returns when it is gone; one that is gone already is fine.
func (p Process) end() error {
	fd, err := p.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %d: %w", p.PID, err)
	}
	if !waitExit(fd, 20*time.Second) {
		return fmt.Errorf("process %d was killed but does not end", p.PID)
	}
	return nil
}

// waitExit waits for the process behind a pid descriptor; a negative timeout waits for ever.
func waitExit(fd int, timeout time.Duration) bool {
	limit := -1
	if timeout >= 0 {
		limit = int(timeout.Milliseconds())
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, limit)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// readProcess reads what writeProcess recorded; a file that is missing or torn records no one.
func readProcess(path string) (Process, bool) {
	var p Process
	content, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(content, &p) != nil {
		return Process{}, false
	}
	return p, p.PID > 1
}

func writeProcess(path string, p Process) error {
	content, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return replaceFile(path, content)
}

// showName makes ps and the like show this process by name, although it was started through /proc/self/exe.
func showName(name string) {
	if text, err := unix.BytePtrFromString(name); err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(text)), 0, 0, 0)
	}
}
