package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

func untar(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func blobOf(t *testing.T, files map[string][]byte, d descriptor) []byte {
	t.Helper()
	content, ok := files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
	sum := sha256.Sum256(content)
	if !ok || len(content) != d.Size || d.Digest != "sha256:"+hex.EncodeToString(sum[:]) {
		t.Fatalf("blob %s is missing or not what it says", d.Digest)
	}
	return content
}

func TestAnImageArchiveLeadsFromItsNameToItsProgram(t *testing.T) {
	archive, err := imageArchive("localhost/x:1", "x", []byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, archive)
	var index struct{ Manifests []descriptor }
	if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("%v %s", err, files["index.json"])
	}
	if name := index.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; name != "localhost/x:1" {
		t.Errorf("name %q", name)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if err := json.Unmarshal(blobOf(t, files, index.Manifests[0]), &manifest); err != nil {
		t.Fatal(err)
	}
	var config struct {
		Config struct{ Entrypoint []string }
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(blobOf(t, files, manifest.Config), &config); err != nil {
		t.Fatal(err)
	}
	layer := untar(t, blobOf(t, files, manifest.Layers[0]))
	if program := layer[strings.TrimPrefix(config.Config.Entrypoint[0], "/")]; string(program) != "program" {
		t.Errorf("program %q", program)
	}
	if config.Rootfs.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Error("the layer is plain, so its diff id is its digest")
	}
}

func TestImagesAreReadFromWhatTheImportSays(t *testing.T) {
	out := "unpacking localhost/a:1 (sha256:00)...done\nunpacking docker.io/library/b:2 (sha256:11)...done\nelapsed: 1 s\n"
	var names []string
	for _, match := range unpacked.FindAllStringSubmatch(out, -1) {
		names = append(names, match[1])
	}
	if strings.Join(names, " ") != "localhost/a:1 docker.io/library/b:2" {
		t.Errorf("%v", names)
	}
}
