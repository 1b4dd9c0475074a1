// Container images: the pause image made from this binary's own copy of `pause`, and archives imported into every node.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// pauseImage holds a pod's namespaces open.
const pauseImage = "localhost/fortia-pause:1"

// pauseFolder holds the pause program once it has been built there (see the Makefile); without it this program still compiles.
//
//go:embed pause
var pauseFolder embed.FS

func pauseProgram() ([]byte, error) {
	program, err := pauseFolder.ReadFile("pause/pause.bin")
	if err != nil {
		return nil, errors.New("this binary was built without pause/pause.bin: run `make cluster` (it builds ./pause first)")
	}
	return program, nil
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// imageArchive makes an OCI archive of an image with one static program in it.
func imageArchive(name, entrypoint string, program []byte) ([]byte, error) {
	layer, err := tarFiles([]file{{entrypoint, program, 0o755}})
	if err != nil {
		return nil, err
	}
	var files []file
	blob := func(mediaType string, content []byte) descriptor {
		digest := sha256.Sum256(content)
		files = append(files, file{"blobs/sha256/" + hex.EncodeToString(digest[:]), content, 0o644})
		return descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(digest[:]), Size: len(content)}
	}
	layerBlob := blob("application/vnd.oci.image.layer.v1.tar", layer)
	config, err := json.Marshal(map[string]any{"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/" + entrypoint}, "User": "65535:65535"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerBlob.Digest}}})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": blob("application/vnd.oci.image.config.v1+json", config), "layers": []descriptor{layerBlob}})
	if err != nil {
		return nil, err
	}
	image := blob("application/vnd.oci.image.manifest.v1+json", manifest)
	image.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{image}})
	if err != nil {
		return nil, err
	}
	return tarFiles(append([]file{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644}, {"index.json", index, 0o644}}, files...))
}

type file struct {
	name    string
	content []byte
	mode    int64
}

func tarFiles(files []file) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// load imports archives into every node of a running cluster and prints the images that came in.
func load(c Cluster, archives []string) error {
	state, err := readState(c)
	if err != nil {
		return fmt.Errorf("cluster %s is not up: run `fortia-cluster --name %s up`", c.Name, c.Name)
	}
	for _, archive := range archives {
		if _, err := os.Stat(archive); err != nil {
			return err
		}
	}
	nodes := make([]Node, state.Nodes)
	for i := range nodes {
		nodes[i] = c.Node(i)
	}
	for _, archive := range archives {
		names, err := importArchive(nodes, archive)
		if err != nil {
			return err
		}
		for _, name := range names {
			fmt.Println(name)
		}
	}
	return nil
}

// importArchive brings one archive into all nodes at once and names the images it held.
func importArchive(nodes []Node, archive string) ([]string, error) {
	names, failures := make([][]string, len(nodes)), make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { names[i], failures[i] = n.importImages(archive) })
	}
	all.Wait()
	return names[0], errors.Join(failures...)
}

var unpacked = regexp.MustCompile(`(?m)^unpacking (\S+) \(sha256:`)

func (n Node) importImages(archive string) ([]string, error) {
	out, err := n.ctr("images", "import", archive)
	if err != nil {
		return nil, fmt.Errorf("%s: import %s: %w", n.Name(), archive, err)
	}
	var names []string
	for _, match := range unpacked.FindAllStringSubmatch(out, -1) {
		names = append(names, match[1])
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: %s holds no image with a full name: annotate each manifest in its index.json with org.opencontainers.image.ref.name=HOST/NAME:TAG", n.Name(), archive)
	}
	return names, n.waitForImages(names)
}

// waitForImages returns once the kubelet's side of containerd knows the images too: it labels each, a moment after the import.
func (n Node) waitForImages(names []string) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, err := n.ctr("images", "list", "--quiet", `labels."io.cri-containerd.image"==managed`)
		if err != nil {
			return err
		}
		known := strings.Fields(out)
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(known, name) })
		if len(missing) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: containerd imported %s but does not offer it to the kubelet", n.Name(), strings.Join(missing, ", "))
		}
		time.Sleep(pollPeriod)
	}
}

func (n Node) ctr(args ...string) (string, error) {
	cmd := exec.Command("ctr", append([]string{"--address", n.Socket(), "--namespace", "k8s.io"}, args...)...)
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(failure.String()))
	}
	return string(out), nil
}
