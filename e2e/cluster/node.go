// One node: the first process of its pid, mount and network namespaces, which keeps the node's programs running. When it ends, the kernel ends everything in the node.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// goLine is what `up` sends a new node once the node is recorded and has its network.
const goLine = "go\n"

// restartDelay keeps a program that fails at once from using a whole core.
const restartDelay = time.Second

// thrift makes a program collect garbage twice as often as by default; idle ones then keep about a third less memory.
const thrift = "GOGC=50"

// hostFolders are fixed in the node's programs, so each node gets folders of its own in their place.
var hostFolders = map[string]string{
	"/var/lib/kubelet":    "var-lib-kubelet",
	"/var/lib/cni":        "var-lib-cni",
	"/var/log/containers": "var-log-containers",
	"/run/containerd":     "run-containerd",
}

// init gives the recorded first process of the node.
func (n Node) init() (Process, bool) { return readProcess(n.path("init.json")) }

// starting is a node whose first process waits for the word to go on.
type starting struct {
	node Node
	pipe *os.File
}

// start makes the node's namespaces and records its first process, which then waits for release.
func (n Node) start() (*starting, error) {
	log, err := openLog(n.path("logs", "node.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command("/proc/self/exe", "--name", n.Cluster.Name, "--dir", filepath.Dir(n.Cluster.Dir), "node", "--index", strconv.Itoa(n.Index))
	cmd.Args[0] = "fortia-cluster"
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = read, log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, fmt.Errorf("start %s: %w", n.Name(), err)
	}
	process, err := identify(cmd.Process.Pid)
	if err == nil {
		err = writeProcess(n.path("init.json"), process)
	}
	if err != nil {
		write.Close() // without the word, the node ends by itself
		return nil, err
	}
	return &starting{node: n, pipe: write}, nil
}

// release lets the node start its programs.
func (s *starting) release() error {
	_, err := s.pipe.WriteString(goLine)
	return errors.Join(err, s.pipe.Close())
}

// runNode is the life of a node's first process.
func runNode(ctx context.Context, n Node) error {
	if os.Getpid() != 1 {
		return errors.New("a node is started by `up`")
	}
	if line, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil || line != goLine {
		return fmt.Errorf("%s: `up` ended before the node was ready to start", n.Name())
	}
	if err := errors.Join(prepareMounts(n), os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)); err != nil {
		return err
	}
	s := &supervisor{node: n, running: map[int]program{}}
	for _, p := range firstPrograms(n) {
		s.start(p)
	}
	go func() {
		if err := waitForAPIServer(ctx, n.Cluster); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		for _, p := range latePrograms(n) {
			s.start(p)
		}
		debug.FreeOSMemory() // from here on this process only waits
	}()
	return s.reap()
}

// prepareMounts gives the node its own /proc and its own version of the folders that are fixed in its programs.
// Mounts made on the host later come in; none made here goes out.
func prepareMounts(n Node) error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share mounts with pods: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for target, own := range hostFolders {
		source := n.path(own)
		if err := errors.Join(os.MkdirAll(source, 0o755), os.MkdirAll(target, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", target, err)
		}
	}
	return nil
}

// supervisor keeps programs running and buries every orphan of the node.
type supervisor struct {
	node    Node
	mu      sync.Mutex
	running map[int]program
}

// start runs p; when that fails or when p ends, it is started again a little later.
func (s *supervisor) start(p program) {
	s.mu.Lock() // reap must not look for the pid before it is in the map
	defer s.mu.Unlock()
	pid, err := s.spawn(p)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.name, err)
		time.AfterFunc(restartDelay, func() { s.start(p) })
		return
	}
	s.running[pid] = p
}

func (s *supervisor) spawn(p program) (int, error) {
	log, err := openLog(s.node.path("logs", p.name+".log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	path := "/proc/self/exe" // still this very binary when its file has been replaced
	if p.path != "" {
		if path, err = exec.LookPath(p.path); err != nil {
			return 0, err
		}
	}
	process, err := os.StartProcess(path, append([]string{p.name}, p.args...), &os.ProcAttr{
		Dir: "/", Env: append(os.Environ(), thrift), Files: []*os.File{nil, log, log}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return 0, err
	}
	pid := process.Pid
	return pid, process.Release()
}

// reap waits for children for ever, the node's own programs and orphans alike.
func (s *supervisor) reap() error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ECHILD) { // all have ended and wait for their new start
			time.Sleep(restartDelay)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: wait for programs: %w", s.node.Name(), err)
		}
		s.mu.Lock()
		p, ours := s.running[pid]
		delete(s.running, pid)
		s.mu.Unlock()
		if ours {
			fmt.Fprintf(os.Stderr, "%s %s ended (%v, exit %d, signal %v), starting it again\n", time.Now().Format(time.RFC3339), p.name, pid, status.ExitStatus(), status.Signal())
			time.AfterFunc(restartDelay, func() { s.start(p) })
		}
	}
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

// enter replaces this process by a command inside the node.
func enter(n Node, command []string) error {
	init, ok := n.init()
	if !ok || !init.alive() {
		return fmt.Errorf("cluster %s: %s does not run", n.Cluster.Name, n.Name())
	}
	path, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	args := append([]string{"nsenter", "--target", strconv.Itoa(init.PID), "--net", "--mount", "--pid", "--"}, command...)
	return syscall.Exec(path, args, os.Environ())
}
