// Forwards that run in the background: who carries what, started once, found again, ended with the cluster.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// openForward is a forward that listens.
type openForward struct {
	Port   uint16 `json:"port"`
	Target string `json:"target"`
}

// backgroundForwards is one process and all that it carries.
type backgroundForwards struct {
	Process Process       `json:"process"`
	Open    []openForward `json:"open"`
}

// readBackground lists the recorded processes that still run.
func readBackground(c Cluster) ([]backgroundForwards, error) {
	files, err := filepath.Glob(c.path("forwards", "*.json"))
	if err != nil {
		return nil, err
	}
	var all []backgroundForwards
	for _, file := range files {
		var one backgroundForwards
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if json.Unmarshal(content, &one) == nil && one.Process.alive() {
			all = append(all, one)
		}
	}
	return all, nil
}

// startForwards is the command `forward --background`.
func startForwards(c Cluster, forwards []forward) error {
	if _, err := readState(c); err != nil {
		return fmt.Errorf("cluster %s is not up: run `fortia-cluster --name %s up`", c.Name, c.Name)
	}
	unlock, err := lock(c)
	if err != nil {
		return err
	}
	defer unlock()
	open, err := ensureForwards(c, forwards)
	for _, f := range open {
		fmt.Printf("127.0.0.1:%d %s\n", f.Port, f.Target)
	}
	return err
}

// ensureForwards starts what does not run yet; the answer is in the order of the wishes.
func ensureForwards(c Cluster, forwards []forward) ([]openForward, error) {
	running, err := readBackground(c)
	if err != nil {
		return nil, err
	}
	open := make([]openForward, len(forwards))
	var missing []int
	for i, f := range forwards {
		found, err := findForward(running, f)
		if err != nil {
			return nil, err
		}
		if found == nil {
			missing = append(missing, i)
			continue
		}
		open[i] = *found
	}
	if len(missing) == 0 {
		return open, nil
	}
	var wishes []forward
	for _, i := range missing {
		wishes = append(wishes, forwards[i])
	}
	started, err := spawnForwards(c, wishes)
	if err != nil {
		return nil, err
	}
	for k, i := range missing {
		open[i] = started[k]
	}
	return open, nil
}

// findForward looks for a running forward that fulfils the wish; a port that leads elsewhere is an error.
func findForward(running []backgroundForwards, wish forward) (*openForward, error) {
	for _, process := range running {
		for _, f := range process.Open {
			sameTarget := f.Target == wish.target.String()
			if sameTarget && (wish.port == 0 || wish.port == f.Port) {
				return &f, nil
			}
			if !sameTarget && wish.port == f.Port {
				return nil, fmt.Errorf("port %d of the host already leads to %s", f.Port, f.Target)
			}
		}
	}
	return nil, nil
}

// spawnForwards starts one process for all wishes and returns once all of them listen.
func spawnForwards(c Cluster, wishes []forward) ([]openForward, error) {
	args := []string{"--name", c.Name, "--dir", filepath.Dir(c.Dir), "forward"}
	for _, wish := range wishes {
		args = append(args, wish.String())
	}
	failure, err := os.CreateTemp(c.path("forwards"), "*.log")
	if err != nil {
		return nil, err
	}
	defer failure.Close()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "fortia-cluster"
	cmd.Dir, cmd.Stderr, cmd.SysProcAttr = "/", failure, &syscall.SysProcAttr{Setsid: true}
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	one := backgroundForwards{}
	scanner := bufio.NewScanner(lines)
	for len(one.Open) < len(wishes) && scanner.Scan() {
		var f openForward
		if _, err := fmt.Sscanf(scanner.Text(), "127.0.0.1:%d %s", &f.Port, &f.Target); err != nil {
			return nil, fmt.Errorf("forward said %q: %w", scanner.Text(), err)
		}
		one.Open = append(one.Open, f)
	}
	if len(one.Open) < len(wishes) {
		_ = cmd.Wait() // what it wrote says more than how it ended
		text, err := os.ReadFile(failure.Name())
		return nil, fmt.Errorf("%s", strings.TrimPrefix(strings.TrimSpace(string(text)), "fortia-cluster: ")+errorText(err))
	}
	if one.Process, err = identify(cmd.Process.Pid); err != nil {
		return nil, err
	}
	content, err := json.Marshal(one)
	if err != nil {
		return nil, err
	}
	return one.Open, replaceFile(c.path("forwards", fmt.Sprintf("%d.json", one.Process.PID)), content)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
