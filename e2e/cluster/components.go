// The programs compiled into this one, each started by its own name as argument zero.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	helm "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// provisionerName is the provisioner of local volumes, as a component and in StorageClasses.
const provisionerName = "fortia-provisioner"

// components maps a program's name to its main function, which gets all arguments and the name first.
var components = map[string]func(args []string){
	"etcd":                    etcdmain.Main,
	"kube-apiserver":          kubernetesProgram(apiserver.NewAPIServerCommand),
	"kube-controller-manager": kubernetesProgram(controllers.NewControllerManagerCommand),
	"kube-scheduler":          kubernetesProgram(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kube-proxy":              kubernetesProgram(proxy.NewProxyCommand),
	"kubelet":                 kubernetesProgram(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kubectl":                 runKubectl,
	"coredns":                 runCoreDNS,
	"helm":                    runHelm,
	provisionerName:           runProvisioner,
}

// kubernetesProgram runs a command of Kubernetes, which reads its arguments from the process.
func kubernetesProgram(command func() *cobra.Command) func([]string) {
	return func(args []string) {
		os.Args = args
		os.Exit(cli.Run(command()))
	}
}

func runKubectl(args []string) {
	os.Args = args
	_, _ = logs.GlogSetter(kubectl.GetLogVerbosity(args)) // a bad verbosity is reported again when the flags are parsed
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

func runCoreDNS(args []string) {
	os.Args = args
	dnsserver.Directives = []string{"bind", "errors", "kubernetes"}
	coremain.Run()
}

func runHelm(args []string) {
	os.Args = args
	kube.ManagedFieldsManager = "helm"
	command, err := helm.NewRootCmd(os.Stdout, args[1:], helm.SetupLogging)
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
	if err := command.Execute(); err != nil {
		var failed helm.CommandError
		if errors.As(err, &failed) {
			os.Exit(failed.ExitCode)
		}
		os.Exit(1)
	}
}
