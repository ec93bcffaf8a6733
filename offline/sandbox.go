// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/miekg/pkcs11"
	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/module"
	"keyferry/offline/internal/sandbox"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/harden"
	"keyferry/pkg/strictjson"
)

// sandboxHelp is on the flags that every command takes because of the sandbox.
const sandboxHelp = `
  --hsm-writes PATH[:PATH…]  where the HSM's module writes files of its own, and
                           the devices in /dev that it talks to; kept by init
                           (on Windows, ; stands between paths)
  --hsm-dll-dir DIR[;DIR…] where Windows looks for what the HSM's module needs,
                           beside its own directory and System32; kept by init
  --hsm-abstract-sockets   leave unix sockets with abstract names open to the
                           HSM's module; kept by init
  --unsafe-hsm-network     leave network sockets open to the HSM's module, for
                           an HSM in a network; kept by init, and recorded
  --unsafe-network-present import or wrap though the machine is connected to
                           a network; recorded
`

// written are the flags, beside --state, that say where a command writes.
var written = []string{"out", "attestation"}

// besides are the commands that write beside the files they are given.
var besides = []string{approveCommand.Name}

// process is what this process gives up. Its flags are declared for every command.
type process struct {
	ceremony.Process
	kept ceremony.TokenSettings // of the state directory, if there is one
}

// enter has every command run in the sandbox of package sandbox, and without
// core dumps, before anything secret is read.
func (p *process) enter(flags *pflag.FlagSet) func(*cli.IO, func() error) error {
	needs := &p.Needs
	flags.StringVar(&needs.Writes, "hsm-writes", "", "")
	flags.StringVar(&needs.DLLDirs, "hsm-dll-dir", "", "")
	flags.BoolVar(&needs.AbstractSockets, "hsm-abstract-sockets", false, "")
	flags.BoolVar(&needs.Network, "unsafe-hsm-network", false, "")
	flags.BoolVar(&p.NetworkPresent, "unsafe-network-present", false, "")
	return func(io *cli.IO, command func() error) error {
		if err := p.shut(io, flags); err != nil {
			return err
		}
		if err := errors.Join(harden.Process(), othersToStderr()); err != nil {
			return err
		}
		p.Memory = harden.LockMemory()
		io.Detail("memory: %s", p.Memory)
		return p.inTheWay(command())
	}
}

// unreachable are return values by which a module says that it does not reach its HSM, or
// can't do what it must for itself.
var unreachable = []error{
	pkcs11.Error(pkcs11.CKR_DEVICE_ERROR), pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED), pkcs11.Error(pkcs11.CKR_TOKEN_NOT_PRESENT),
	pkcs11.Error(pkcs11.CKR_TOKEN_NOT_RECOGNIZED), pkcs11.Error(pkcs11.CKR_GENERAL_ERROR), pkcs11.Error(pkcs11.CKR_FUNCTION_FAILED),
}

// inTheWay says, in the hint of a module that fails to begin, shows no token or does not
// reach its HSM, what of all that the sandbox still forbids, and the flags that allow it.
func (p *process) inTheWay(err error) error {
	var forbids []string
	for _, door := range []struct {
		shut bool
		says string
	}{
		{p.Held.OnlyUnixSockets, "network sockets, to this machine and to USB too (--unsafe-hsm-network)"},
		{!p.Held.AbstractSockets && p.Held.LandlockABI > 0, "unix sockets with abstract names (--hsm-abstract-sockets)"},
		{p.Held.LandlockABI > 0, "its logs, locks, shared memory and devices (--hsm-writes with each that it writes)"},
		{p.Held.AppContainer != "", "sockets, devices, services and all files but those of the command (--unsafe-hsm-network goes without the AppContainer)"},
	} {
		if door.shut {
			forbids = append(forbids, door.says)
		}
	}
	if err == nil || len(forbids) == 0 || p.kept.Practice {
		return err
	}
	says := "; or the sandbox stands in the way, which forbids the module " + strings.Join(forbids, ", ") +
		": offline doctor --hsm-outside-sandbox names what it opens, docs/hsm.md what each vendor's needs"
	for _, r := range cli.Refusals(err) {
		fails := slices.ContainsFunc(unreachable, func(code error) bool { return errors.Is(r, code) }) ||
			p.Held.AppContainer != "" && errors.Is(r, fs.ErrPermission)
		switch {
		case strings.Contains(r.Hint, "--hsm-outside-sandbox"): // it is said
		case r.Control.ID == control.HSMTokenLabel.ID:
			r.Hint += "; where it is not among them and should be, offline doctor --hsm-outside-sandbox tells whether the sandbox stands in the way"
		case r.Control.ID == control.HSMModule.ID, r.Control.ID == control.HSMNoToken.ID, fails:
			r.Hint += says
		}
	}
	return err
}

// shut shuts the process in.
func (p *process) shut(io *cli.IO, flags *pflag.FlagSet) error {
	writable, err := p.complete(io.State, flags)
	if err != nil {
		return err
	}
	if err := p.outsideSandbox(io, flags, writable); err != nil {
		return err
	}
	if err := harden.OverwriteFreed(); err != nil { // in the program that Enter starts
		return err
	}
	broker(p, io, flags, writable)
	p.Held, err = sandbox.Enter(sandbox.Limits{Writable: writable, Network: p.Needs.Network, AbstractSockets: p.Needs.AbstractSockets})
	if err != nil {
		return err
	}
	io.Detail("%s", ceremony.SandboxText(p.Held))
	return nil
}

// broker gets ready what the sandbox of Windows needs beside.
var broker = func(*process, *cli.IO, *pflag.FlagSet, []string) {}

// complete adds what init kept, and returns where the command may write.
func (p *process) complete(state string, flags *pflag.FlagSet) ([]string, error) {
	n := &p.Needs
	var kept ceremony.TokenSettings
	var writable []string
	switch data, err := os.ReadFile(filepath.Join(state, ceremony.TokenFile)); {
	case state == "": // the command needs none
	case flags.Name() == "init": // the state directory comes into being beside its place
		writable = append(writable, filepath.Dir(filepath.Clean(state)))
	case err == nil:
		if err := strictjson.Unmarshal(data, 1<<20, &kept); err != nil {
			return nil, control.StateDamaged.Refuse("%s can't be read: %w", filepath.Join(state, ceremony.TokenFile), err)
		}
		writable = append(writable, state)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR): // the command needs none, or will refuse it
		return nil, err
	}
	if n.Writes == "" {
		n.Writes = kept.Sandbox.Writes
	}
	if n.DLLDirs == "" {
		n.DLLDirs = kept.Sandbox.DLLDirs
	}
	if err := module.SearchIn(filepath.SplitList(n.DLLDirs)); err != nil {
		return nil, err
	}
	n.Network = n.Network || kept.Sandbox.Network
	n.AbstractSockets = n.AbstractSockets || kept.Sandbox.AbstractSockets
	p.kept = kept
	for _, path := range filepath.SplitList(n.Writes) {
		if _, err := os.Stat(path); err != nil {
			return nil, control.InputFile.Refuse("--hsm-writes: %w", err)
		}
		writable = append(writable, path)
	}
	if slices.Contains(besides, flags.Name()) {
		for _, path := range flags.Args() {
			writable = append(writable, filepath.Dir(path))
		}
	}
	for _, name := range written {
		if flag := flags.Lookup(name); flag != nil && cli.WrittenBy(flag) != "" {
			writable = append(writable, cli.WrittenBy(flag))
		}
	}
	if _, err := os.Stat(filepath.Join(state, ceremony.SoftHSMConf)); err == nil && state != "" { // in a rehearsal, the token is in the state directory
		return writable, nil
	}
	chosen := chosenModule(flags)
	return append(writable, slices.DeleteFunc(slices.Concat(module.Writes(kept.Module, kept.Parameters), chosen), isAbsent)...), nil
}

// chosenModule lists where the module writes that the flags of init and doctor
// choose.
func chosenModule(flags *pflag.FlagSet) []string {
	parameters := ""
	if flag := flags.Lookup("hsm-parameters"); flag != nil {
		parameters = flag.Value.String()
	}
	return module.Writes(chosenPath(flags), parameters)
}

// chosenPath is the module that the flags choose; empty where they choose none.
func chosenPath(flags *pflag.FlagSet) string {
	value := func(name string) string {
		if flag := flags.Lookup(name); flag != nil {
			return flag.Value.String()
		}
		return ""
	}
	path := value("hsm-module")
	if uri, err := module.ParseURI(value("hsm-uri")); path == "" && err == nil { // a wrong one, the command refuses
		path = uri.ModulePath
	}
	return path
}

func isAbsent(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
