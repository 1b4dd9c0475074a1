// Command fortia-cluster is a real local Kubernetes of one or more nodes in one program; this file knows its commands.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	root, called := rootCommand(), filepath.Base(os.Args[0])
	showName(called)
	if run, ok := components[called]; ok {
		if !isClient(called) {
			run(os.Args)
			return
		}
		root.SetArgs(append([]string{called}, os.Args[1:]...))
	}
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "fortia-cluster:", err)
		os.Exit(1)
	}
}

// isClient tells the programs that people run from those that a cluster runs. A link with a client's name acts as that client.
func isClient(component string) bool { return component == "kubectl" || component == "helm" }

// selection is which cluster a command is about.
type selection struct{ name, base string }

func (s *selection) cluster() (Cluster, error) { return NewCluster(s.name, s.base) }

func orElse(value, other string) string {
	if value != "" {
		return value
	}
	return other
}

func rootCommand() *cobra.Command {
	s := &selection{}
	root := &cobra.Command{
		Use: "fortia-cluster", Short: "A real local Kubernetes of one or more nodes, without docker and without internet",
		SilenceUsage: true, SilenceErrors: true, TraverseChildren: true,
	}
	root.PersistentFlags().StringVar(&s.name, "name", orElse(os.Getenv("FORTIA_CLUSTER_NAME"), "fortia"), "name of the cluster (or FORTIA_CLUSTER_NAME)")
	root.PersistentFlags().StringVar(&s.base, "dir", orElse(os.Getenv("FORTIA_CLUSTER_DIR"), "/var/lib/fortia-cluster"), "folder that holds the state of all clusters (or FORTIA_CLUSTER_DIR)")
	root.AddCommand(upCommand(s), downCommand(s), loadCommand(s), kubeconfigCommand(s), forwardCommand(s), statusCommand(s),
		partitionCommand(s, "partition", "Cut a node off from all other nodes", true),
		partitionCommand(s, "heal", "Join a partitioned node again", false),
		clientCommand(s, "kubectl", "The kubectl of this cluster's version; KUBECONFIG defaults to this cluster"),
		clientCommand(s, "helm", "Helm 4; KUBECONFIG defaults to this cluster"),
		enterCommand(s), nodeCommand(s))
	for name := range components {
		if !isClient(name) {
			root.AddCommand(componentCommand(name))
		}
	}
	return root
}

func upCommand(s *selection) *cobra.Command {
	var options upOptions
	cmd := &cobra.Command{Use: "up", Short: "Start the cluster, or do nothing when it runs and is healthy", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.cluster()
			if err != nil {
				return err
			}
			return up(cmd.Context(), c, options)
		}}
	cmd.Flags().IntVar(&options.nodes, "nodes", 0, "number of nodes (default: as many as run, or one)")
	cmd.Flags().Uint16Var(&options.port, "port", 0, "loopback port of the API server on the host (default: any that is free)")
	return cmd
}

func downCommand(s *selection) *cobra.Command {
	return &cobra.Command{Use: "down", Short: "End the cluster and remove everything it made", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := s.cluster()
			if err != nil {
				return err
			}
			return down(c)
		}}
}

func loadCommand(s *selection) *cobra.Command {
	return &cobra.Command{Use: "load IMAGE.tar...", Short: "Import image archives (OCI or docker) into every node", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, archives []string) error {
			c, err := s.cluster()
			if err != nil {
				return err
			}
			return load(c, archives)
		}}
}

func kubeconfigCommand(s *selection) *cobra.Command {
	var content bool
	cmd := &cobra.Command{Use: "kubeconfig", Short: "Print the path of a kubeconfig that works on this host", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := s.cluster()
			if err != nil {
				return err
			}
			text, err := os.ReadFile(c.Kubeconfig())
			if err != nil {
				return fmt.Errorf("cluster %s is not up (%w): run `fortia-cluster --name %s up`", c.Name, err, c.Name)
			}
			if content {
				_, err = os.Stdout.Write(text)
				return err
			}
			fmt.Println(c.Kubeconfig())
			return nil
		}}
	cmd.Flags().BoolVar(&content, "content", false, "print the content instead of the path")
	return cmd
}

func forwardCommand(s *selection) *cobra.Command {
	var background bool
	cmd := &cobra.Command{Use: "forward HOSTPORT:TARGET...", Short: "Make addresses inside the cluster reachable on the host's loopback",
		Long: `Make addresses inside the cluster reachable on 127.0.0.1 of this host.
TARGET is apiserver, IP:PORT, or svc/NAMESPACE/NAME:PORT (a number or a port's name). HOSTPORT 0 takes any free port.
Each forward is printed as one line "127.0.0.1:PORT TARGET" once it listens.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.cluster()
			if err != nil {
				return err
			}
			forwards, err := parseForwards(args)
			if err != nil {
				return err
			}
			if background {
				return startForwards(c, forwards)
			}
			return serveForwards(cmd.Context(), c, forwards)
		}}
	cmd.Flags().BoolVar(&background, "background", false, "return once all listen; `down` ends them")
	return cmd
}

func partitionCommand(s *selection, use, short string, cut bool) *cobra.Command {
	var index int
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := s.cluster()
			if err != nil {
				return err
			}
			return setPartition(c.Node(index), cut)
		}}
	cmd.Flags().IntVar(&index, "node", -1, "index of the node, from 1")
	_ = cmd.MarkFlagRequired("node")
	return cmd
}

func statusCommand(s *selection) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show what runs (fails when the cluster is not healthy)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.cluster()
			if err != nil {
				return err
			}
			return status(cmd.Context(), c)
		}}
}

func clientCommand(s *selection, use, short string) *cobra.Command {
	return &cobra.Command{Use: use + " ...", Short: short, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := s.cluster()
			if err != nil {
				return err
			}
			if os.Getenv("KUBECONFIG") == "" {
				if err := os.Setenv("KUBECONFIG", c.Kubeconfig()); err != nil {
					return err
				}
			}
			if set, err := keepCaches(c); err != nil {
				return err
			} else if set && use == "helm" {
				// Helm has looked at them before any of this began.
				return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
			}
			components[use](append([]string{use}, args...))
			return nil
		}}
}

// cacheFolders are where kubectl and helm keep what they have fetched, by the variable that says so.
var cacheFolders = map[string]string{
	"KUBECACHEDIR":     "kubectl",
	"HELM_CACHE_HOME":  "helm/cache",
	"HELM_CONFIG_HOME": "helm/config",
	"HELM_DATA_HOME":   "helm/data",
}

// keepCaches lets clients of a cluster that is up keep their caches in its folder, which goes with it; what the user has
// set stays. It tells whether it set anything.
func keepCaches(c Cluster) (set bool, err error) {
	if _, err := os.Stat(c.Dir); err != nil {
		return false, nil // kubectl of another cluster: its caches are the user's own
	}
	for variable, folder := range cacheFolders {
		if os.Getenv(variable) != "" {
			continue
		}
		if err := os.Setenv(variable, c.path("clients", folder)); err != nil {
			return set, err
		}
		set = true
	}
	return set, nil
}

func componentCommand(name string) *cobra.Command {
	return &cobra.Command{Use: name, Hidden: true, DisableFlagParsing: true,
		Run: func(_ *cobra.Command, args []string) { components[name](append([]string{name}, args...)) }}
}

func enterCommand(s *selection) *cobra.Command {
	var index int
	cmd := &cobra.Command{Use: "enter [--node N] COMMAND...", Short: "Run a command inside a node's namespaces", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := s.cluster()
			if err != nil {
				return err
			}
			return enter(c.Node(index), args)
		}}
	cmd.Flags().IntVar(&index, "node", 0, "index of the node")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func nodeCommand(s *selection) *cobra.Command {
	var index int
	cmd := &cobra.Command{Use: "node", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.cluster()
			if err != nil {
				return err
			}
			return runNode(cmd.Context(), c.Node(index))
		}}
	cmd.Flags().IntVar(&index, "index", 0, "index of the node")
	return cmd
}
