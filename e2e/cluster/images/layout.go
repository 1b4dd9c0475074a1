package main

// This file turns an OCI layout into one archive: it knows the layout's files, drops blobs that no image names any more,
// and gives every image the name under which containerd imports it.

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	refName       = "org.opencontainers.image.ref.name"
	containerName = "io.containerd.image.name"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    json.RawMessage   `json:"platform,omitempty"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []descriptor `json:"manifests"`
}

type manifest struct {
	Config descriptor   `json:"config"`
	Layers []descriptor `json:"layers"`
}

func readIndex(layout string) (index, error) {
	var i index
	text, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		return i, err
	}
	return i, json.Unmarshal(text, &i)
}

func inLayout(layout, name string) bool {
	i, err := readIndex(layout)
	return err == nil && slices.ContainsFunc(i.Manifests, func(d descriptor) bool { return d.Annotations[refName] == name })
}

// pack writes the archive unless it holds exactly these images already, and tells whether it did.
func pack(layout, archive string) (bool, error) {
	images, err := readIndex(layout)
	if err != nil {
		return false, err
	}
	images.Manifests = slices.DeleteFunc(images.Manifests, func(d descriptor) bool { return d.Annotations[refName] == "" })
	for i := range images.Manifests {
		images.Manifests[i].Annotations[containerName] = images.Manifests[i].Annotations[refName]
	}
	slices.SortFunc(images.Manifests, func(a, b descriptor) int { return strings.Compare(a.Annotations[refName], b.Annotations[refName]) })
	text, err := json.Marshal(images)
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(archive); err == nil {
		if old, err := os.ReadFile(archive + ".index"); err == nil && string(old) == string(text) {
			return false, nil
		}
	}
	blobs, err := used(layout, images)
	if err != nil {
		return false, err
	}
	if err := dropOthers(layout, blobs); err != nil {
		return false, err
	}
	if err := writeArchive(layout, archive, text, blobs); err != nil {
		return false, err
	}
	return true, os.WriteFile(archive+".index", text, 0o644)
}

// used lists the blobs of all images, sorted, each once.
func used(layout string, images index) ([]string, error) {
	var blobs []string
	for _, image := range images.Manifests {
		path, err := blobPath(image.Digest)
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(filepath.Join(layout, path))
		if err != nil {
			return nil, err
		}
		var m manifest
		if err := json.Unmarshal(text, &m); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", image.Digest, err)
		}
		blobs = append(blobs, path)
		for _, part := range append(m.Layers, m.Config) {
			path, err := blobPath(part.Digest)
			if err != nil {
				return nil, err
			}
			blobs = append(blobs, path)
		}
	}
	slices.Sort(blobs)
	return slices.Compact(blobs), nil
}

func blobPath(digest string) (string, error) {
	algorithm, sum, ok := strings.Cut(digest, ":")
	if !ok || strings.Contains(digest, "/") {
		return "", fmt.Errorf("%q is no digest", digest)
	}
	return filepath.Join("blobs", algorithm, sum), nil
}

func dropOthers(layout string, blobs []string) error {
	files, err := filepath.Glob(filepath.Join(layout, "blobs", "*", "*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		name, err := filepath.Rel(layout, file)
		if err != nil {
			return err
		}
		if _, found := slices.BinarySearch(blobs, name); !found {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeArchive writes beside the archive and renames, so that an archive is whole or not there.
func writeArchive(layout, archive string, indexText []byte, blobs []string) (err error) {
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		return err
	}
	file, err := os.Create(archive + ".part")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := tar.NewWriter(file)
	for name, text := range map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": indexText} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	for _, blob := range blobs {
		if err := addFile(w, filepath.Join(layout, blob), blob); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.Rename(archive+".part", archive)
}

func addFile(w *tar.Writer, path, name string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(w, file)
	return err
}
