package main

import (
	"archive/tar"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// layoutWith writes an OCI layout with one image of that name, a blob it uses and one that nothing uses.
func layoutWith(t *testing.T, name string) string {
	t.Helper()
	layout := t.TempDir()
	write := func(path string, value any) {
		text, ok := value.(string)
		if !ok {
			encoded, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			text = string(encoded)
		}
		full := filepath.Join(layout, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("blobs/sha256/manifest", manifest{Config: descriptor{Digest: "sha256:config"}, Layers: []descriptor{{Digest: "sha256:layer"}}})
	write("blobs/sha256/config", "{}")
	write("blobs/sha256/layer", "files")
	write("blobs/sha256/old", "files of a build before")
	write("index.json", index{SchemaVersion: 2, Manifests: []descriptor{
		{Digest: "sha256:manifest", Annotations: map[string]string{refName: name}},
		{Digest: "sha256:old"},
	}})
	return layout
}

func entries(t *testing.T, archive string) map[string]string {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	found, r := map[string]string{}, tar.NewReader(file)
	for {
		header, err := r.Next()
		if err == io.EOF {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		found[header.Name] = string(text)
	}
}

func TestTheArchiveHoldsNamedImagesAndNothingElse(t *testing.T) {
	layout, archive := layoutWith(t, "localhost/fortia-auth:dev"), filepath.Join(t.TempDir(), "images.tar")
	written, err := pack(layout, archive)
	if err != nil || !written {
		t.Fatalf("written %v, error %v", written, err)
	}
	found := entries(t, archive)
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{"blobs/sha256/config", "blobs/sha256/layer", "blobs/sha256/manifest", "index.json", "oci-layout"}
	if !slices.Equal(names, want) {
		t.Errorf("archive holds %v, want %v", names, want)
	}
	if !strings.Contains(found["index.json"], `"io.containerd.image.name":"localhost/fortia-auth:dev"`) {
		t.Errorf("containerd would not know the image's name: %s", found["index.json"])
	}
	if _, err := os.Stat(filepath.Join(layout, "blobs/sha256/old")); !os.IsNotExist(err) {
		t.Errorf("a blob that no image uses is kept: %v", err)
	}
}

func TestAnArchiveOfTheSameImagesIsNotWrittenAgain(t *testing.T) {
	layout, archive := layoutWith(t, "localhost/fortia-auth:dev"), filepath.Join(t.TempDir(), "images.tar")
	if _, err := pack(layout, archive); err != nil {
		t.Fatal(err)
	}
	if written, err := pack(layout, archive); err != nil || written {
		t.Fatalf("written %v, error %v", written, err)
	}
	if err := os.Remove(archive); err != nil {
		t.Fatal(err)
	}
	if written, err := pack(layout, archive); err != nil || !written {
		t.Fatalf("an archive that was removed is not made again: written %v, error %v", written, err)
	}
}

func TestADigestCannotLeaveTheLayout(t *testing.T) {
	for _, digest := range []string{"sha256", "sha256:../../secret", "../x:y"} {
		if path, err := blobPath(digest); err == nil {
			t.Errorf("%q gives %s", digest, path)
		}
	}
}

func TestAProgramWithAnUnknownLibraryIsRefusedByName(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := fits("/usr/bin/env", t.TempDir()); err == nil || !strings.Contains(err.Error(), "libc.so.6") {
		t.Errorf("an empty root file system is said to fit: %v", err)
	}
	if err := fits(program, "/"); err != nil {
		t.Errorf("this program runs here, yet: %v", err)
	}
}

func TestRootFileSystemsHaveNoShellAndKeepLicences(t *testing.T) {
	valkey := valkeyBase().keep
	for path, want := range map[string]bool{
		"usr/bin/valkey-server":                         true,
		"usr/lib/x86_64-linux-gnu/libc.so.6":            true,
		"usr/share/doc/valkey-server/copyright":         true,
		"usr/share/doc/valkey-server/NEWS.gz":           false,
		"usr/bin/dash":                                  false,
		"usr/lib/x86_64-linux-gnu/gconv/EUC-TW.so":      false,
		"etc/resolv.conf":                               false,
		"usr/lib/x86_64-linux-gnu/security/pam_exec.so": false,
	} {
		if valkey(path) != want {
			t.Errorf("%s: kept %v, want %v", path, !want, want)
		}
	}
}

func TestTheBaseIsOfThisMachinesRelease(t *testing.T) {
	if name, err := codename("ID=debian\nVERSION_CODENAME=bookworm\n"); err != nil || name != "bookworm" {
		t.Errorf("%q %v", name, err)
	}
	if _, err := codename("ID=fedora\nVERSION_CODENAME=x\n"); err == nil || !strings.Contains(err.Error(), "--suite") {
		t.Errorf("no word of what to do: %v", err)
	}
}

// The Dockerfile is for people with docker; both ways must give images that Kubernetes runs alike.
func TestTheDockerfileAgreesWithTheOfflineImages(t *testing.T) {
	text, err := os.ReadFile("../../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	stages := map[string]string{}
	for _, stage := range regexp.MustCompile(`(?m)^FROM `).Split(string(text), -1)[1:] {
		if name := regexp.MustCompile(`^\S+ AS (\S+)`).FindStringSubmatch(stage); name != nil {
			stages[name[1]] = stage
		}
	}
	for _, name := range services {
		if want := `ENTRYPOINT ["/usr/bin/fortia-` + name + `"]`; !strings.Contains(stages[name], want) {
			t.Errorf("target %s has no %s", name, want)
		}
	}
	if !strings.Contains(stages["valkey"], `ENTRYPOINT ["/usr/bin/valkey-server"]`) {
		t.Error("target valkey has another entry point")
	}
	for _, name := range []string{"service", "valkey"} {
		if !strings.Contains(stages[name], "USER "+user+"\n") {
			t.Errorf("target %s does not run as %s", name, user)
		}
	}
}
