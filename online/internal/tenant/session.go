// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"keyferry/pkg/control"
)

// PowerShell drives the AIPService module in one process of Windows PowerShell
// 5.1, from the sign-in to the end: it is a Tenant once it is connected.
//
// The script goes over standard input, and so does a password, after it, as a
// line that the script reads character by character into a SecureString. It is
// in no argument, no environment, no file, no text of a script and no parameter
// of a cmdlet but as a SecureString, so that neither PowerShell's script-block
// log nor its module log nor a transcript can hold it.
type PowerShell struct {
	process *process
	answers *bufio.Reader
	verbose func(line string)
	version Versions
}

// maxAnswer bounds a line of the session in bytes.
const maxAnswer = 4 << 20

// mark stands before an answer. Other lines are what cmdlets show a person.
const mark = "keyferry "

// Start starts powershell.exe at path and checks it (KF-RMS-POWERSHELL,
// KF-RMS-MODULE). The session ends with ctx at the latest. What cmdlets say, as
// with -Verbose, goes to verbose, which may be nil.
func Start(ctx context.Context, path string, verbose func(line string)) (*PowerShell, error) {
	process, err := startProcess(ctx, path)
	if err != nil {
		return nil, err
	}
	if verbose == nil {
		verbose = func(string) {}
	}
	p := &PowerShell{process: process, answers: bufio.NewReaderSize(process.stdout, 64<<10), verbose: verbose}
	err = p.begin(ctx)
	if err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

// begin hands the script over and asks for the versions.
func (p *PowerShell) begin(ctx context.Context) error {
	if _, err := io.WriteString(p.process.stdin, functions+"\n"+sessionScript+"\n#end\n"); err != nil {
		return p.lost("starting", err)
	}
	a, err := p.ask(ctx, "asking for the versions", nil, "versions")
	if err != nil {
		return err
	}
	p.version = a.Versions
	return p.version.check()
}

// Versions are those that were found.
func (p *PowerShell) Versions() Versions { return p.version }

// environments are AIPService's names of Azure's clouds; the public one needs
// none.
var environments = map[string]string{"public": "", "china": "AzureChinaCloud", "usgov": "AzureUSGovernment"}

// Connect signs in, in a window of the module's own. The cloud is public, china
// or usgov.
func (p *PowerShell) Connect(ctx context.Context, cloud string) error {
	environment, ok := environments[cloud]
	if !ok {
		return control.RMSSignIn.Refuse("there is no Azure RMS in the cloud %s", control.Quote(cloud))
	}
	_, err := p.ask(ctx, "signing in to Azure RMS", nil, "connect", []byte(environment))
	return err
}

// Keys lists the tenant's keys, oldest first.
func (p *PowerShell) Keys(ctx context.Context) ([]Key, error) {
	a, err := p.ask(ctx, "listing the tenant's keys", nil, "keys")
	if err != nil {
		return nil, err
	}
	return readKeys(a.Keys)
}

// ImportTPD imports a TPD and returns the key that the tenant then
// lists in addition.
func (p *PowerShell) ImportTPD(ctx context.Context, in TPDImport) (Key, error) {
	switch {
	case len(in.Password) == 0 || !utf8.Valid(in.Password) || bytes.ContainsAny(in.Password, "\r\n\x00"):
		return Key{}, control.SecretEmpty.Refuse("the TPD's password is empty, or not one line of UTF-8")
	case (in.KeyURL == "") != in.MicrosoftManaged:
		return Key{}, control.RMSKeyURL.Refuse("a keyless TPD is imported with the URL of its key, one that carries its key without one")
	}
	before, err := p.Keys(ctx)
	if err != nil {
		return Key{}, err
	}
	if _, err := p.ask(ctx, "importing the TPD "+control.Quote(in.FriendlyName), in.Password, "import", in.TPD, []byte(in.FriendlyName), []byte(in.KeyURL)); err != nil {
		return Key{}, err
	}
	after, err := p.Keys(ctx)
	if err != nil {
		return Key{}, err
	}
	added := slices.DeleteFunc(after, func(k Key) bool {
		return slices.ContainsFunc(before, func(b Key) bool { return b.KeyIdentifier == k.KeyIdentifier })
	})
	if len(added) != 1 {
		return Key{}, control.RMSKeyExists.Refuse("after the import of the TPD %s the tenant lists %d new keys, not one", control.Quote(in.FriendlyName), len(added)).
			WithHint("look at the tenant's keys with Get-AipServiceKeys, then run the same command again")
	}
	if added[0].KeyURL == "" {
		added[0].KeyURL = in.KeyURL
	}
	return added[0], nil
}

// SetActive makes one key the active one.
func (p *PowerShell) SetActive(ctx context.Context, keyIdentifier string) error {
	keys, err := p.Keys(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(keys, func(k Key) bool { return k.KeyIdentifier == keyIdentifier })
	switch {
	case i < 0:
		return control.RMSKeyMissing.Refuse("the tenant has no key %s", control.Quote(keyIdentifier))
	case keys[i].Status == Active:
		return nil
	}
	_, err = p.ask(ctx, "making the key "+keyIdentifier+" active", nil, "activate", []byte(keyIdentifier))
	return err
}

// Close signs out, where Connect signed in, and ends the session.
func (p *PowerShell) Close() error {
	if _, err := p.ask(context.Background(), "signing out", nil, "disconnect"); err != nil {
		p.end() // it has failed already, which is what counts
		return err
	}
	return p.end()
}

// end ends the process.
func (p *PowerShell) end() error {
	if err := p.process.end(); err != nil {
		return p.lost("ending", err)
	}
	return nil
}

// answer is what the session says to a request.
type answer struct {
	Error    string      `json:"error"`
	Kind     string      `json:"kind"` // PowerShell's identifier of the error
	Log      []string    `json:"log"`  // what -Verbose said
	Versions Versions    `json:"versions"`
	Keys     []tenantKey `json:"tenant_keys"`
}

// ask makes one request: a word, and more in base64; the secret, where there is
// one, follows as a line of its own, of which no copy is made here. The end of
// ctx ends the session.
func (p *PowerShell) ask(ctx context.Context, doing string, secret []byte, word string, more ...[]byte) (*answer, error) {
	line := []byte(word)
	for _, m := range more {
		line = base64.StdEncoding.AppendEncode(append(line, ' '), m)
	}
	parts := [][]byte{append(line, '\n')}
	if secret != nil {
		parts = append(parts, secret, []byte{'\n'})
	}
	stop := context.AfterFunc(ctx, func() { p.process.cmd.Process.Kill() }) // its end shows below
	defer stop()
	for _, part := range parts {
		if _, err := p.process.stdin.Write(part); err != nil {
			return nil, p.lost(doing, errors.Join(ctx.Err(), err))
		}
	}
	a, err := p.receive()
	if err != nil {
		return nil, p.lost(doing, errors.Join(ctx.Err(), err))
	}
	for _, said := range a.Log {
		p.verbose(said)
	}
	if a.Error != "" {
		return nil, cause(doing, a)
	}
	return a, nil
}

// receive reads up to the next answer.
func (p *PowerShell) receive() (*answer, error) {
	for {
		line, err := p.line()
		if err != nil {
			return nil, err
		}
		text, ok := bytes.CutPrefix(line, []byte(mark))
		if !ok {
			if said := strings.TrimSpace(string(line)); said != "" {
				p.verbose(said)
			}
			continue
		}
		a := new(answer)
		return a, json.Unmarshal(text, a)
	}
}

// line reads a line of bounded length.
func (p *PowerShell) line() ([]byte, error) {
	var line []byte
	for {
		part, err := p.answers.ReadSlice('\n')
		if line = append(line, part...); len(line) > maxAnswer {
			return nil, errors.New("the answer is too long")
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimRight(line, "\r\n"), err
		}
	}
}

// lost is the refusal of a session that does not go on. It ends it: what the
// process said last tells why, and that is whole only then.
func (p *PowerShell) lost(doing string, err error) error {
	p.process.end() // how it ends follows from err
	if said := p.process.stderr.String(); said != "" {
		return control.RMSFailed.Refuse("%s: Windows PowerShell does not go on: %w: %s", doing, err, control.Quote(said))
	}
	return control.RMSFailed.Refuse("%s: Windows PowerShell does not go on: %w", doing, err)
}
