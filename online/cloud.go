// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/practice"
	"keyferry/pkg/rms"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
	"keyferry/pkg/vault"
)

// withState runs f in the open state directory.
func withState(io *cli.IO, f func(s *state.State) error) error {
	s, err := state.Open(io.State, state.Online)
	if err != nil {
		return err
	}
	return errors.Join(f(s), s.Close())
}

// ownWorld is this side's security world, and its package.
func ownWorld(s *state.State) (*trust.World, []byte, error) {
	file, err := os.ReadFile(s.Path(worldFile))
	if err != nil {
		return nil, nil, control.StateDamaged.Refuse("the security world can't be read: %w", err)
	}
	w, err := trust.OpenWorld(file)
	return w, file, err
}

// cloud is the vault, and the tenant where there is one to drive.
type cloud struct {
	vault  *vault.Client
	tenant rms.Tenant // nil: a person imports the TPDs
}

// withCloud runs f against the state directory's cloud: in a rehearsal the
// practice cloud, served for as long as f runs, else Azure.
func withCloud(s *state.State, f func(c cloud) error) error {
	w, _, err := ownWorld(s)
	if err != nil {
		return err
	}
	if s.Rehearsal {
		return withPractice(s, w.Vault, f)
	}
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return control.VaultSignIn.Refuse("no way to sign in to Azure was found: %w", err)
	}
	client, err := vault.New(w.Vault, credential, nil)
	if err != nil {
		return err
	}
	return f(cloud{vault: client})
}

func withPractice(s *state.State, url string, f func(c cloud) error) (err error) {
	practiceCloud, err := practice.Open(s.Path("practice"))
	if err != nil {
		return err
	}
	endpoint, err := practiceCloud.Start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, endpoint.Close()) }()
	client, err := vault.New(url, endpoint.Credential(), endpoint.Transport())
	if err != nil {
		return err
	}
	return f(cloud{vault: client, tenant: practiceCloud.Tenant()})
}
