// Command images builds every container image of Fortia without docker, a registry or root file systems of others:
// Debian packages become root file systems, buildah makes images of them, one OCI archive holds them all.
// This file knows the list of images and the command line.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// services are the programs that get an image of their own, all on the same base.
var services = []string{"auth", "game", "logserver", "migrator", "operator", "scheduler", "ticker", "worldgen"}

const (
	prefix = "localhost/fortia-"
	tag    = ":dev"
	// user is who every image runs as, by number: Kubernetes can prove a number to be non-root, a name it cannot.
	user = "65532:65532"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	bins := flags.String("bins", "target/debug", "folder of the programs fortia-<service>")
	out := flags.String("out", "build/images", "folder for root file systems, buildah's store and the OCI layout")
	archive := flags.String("tar", "build/images.tar", "the archive to write")
	launchers := flags.String("launchers", "build", "folder for scripts that run the image's valkey-server, -cli and -benchmark on this machine, for tests")
	suite := flags.String("suite", "", "Debian release of the services' base (default: this machine's, so that its C library fits the programs)")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "images [flags] [NAME...]: build these images, or all: %s valkey\n", strings.Join(services, " "))
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("must run as root (owners and modes in the images are real): use sudo")
	}
	names := flags.Args()
	if len(names) == 0 {
		names = append(append(names, services...), "valkey")
	}
	folder, err := filepath.Abs(*out)
	if err != nil {
		return err
	}
	defer forget(traces(leftBehind))
	b := builder{bins: *bins, out: folder, suite: *suite}
	started, built := time.Now(), 0
	for _, name := range names {
		fresh, err := b.image(name)
		if err != nil {
			return fmt.Errorf("image %s: %w", name, err)
		}
		if fresh {
			built++
		}
	}
	if err := b.launchers(*launchers); err != nil {
		return fmt.Errorf("launchers in %s: %w", *launchers, err)
	}
	written, err := pack(b.layout(), *archive)
	if err != nil {
		return fmt.Errorf("archive %s: %w", *archive, err)
	}
	state := "unchanged"
	if written {
		state = "written"
	}
	fmt.Printf("images: %d built, %d unchanged, %s %s, %.1f s\n", built, len(names)-built, *archive, state, time.Since(started).Seconds())
	return nil
}
