// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
)

// PowerShell drives the AIPService module in one process of Windows PowerShell
// 5.1, from the sign-in to the end: it is a Tenant once it is connected.
//
// A password goes over standard input, as a line that the script reads
// character by character into a SecureString. It is in no argument, no
// environment, no file, no text of a script and no parameter of a cmdlet but as
// a SecureString, so that neither PowerShell's script-block log nor its module
// log nor a transcript can hold it. The cmdlet wants the TPD as a file: it lies
// in the scratch directory while it is imported.
type PowerShell struct {
	process *process
	answers *bufio.Reader
	scratch string
	hear    Hearer
	version Versions
	inside  bool // signed in
	gone    bool // the process has ended, which was told
}

// Hearer is told what the module says beside errors. What is nil is not told.
type Hearer struct {
	Detail func(line string) // as with -Verbose
	Note   func(line string) // what a cmdlet returns, and what could not be tidied up
	Warn   func(line string) // warnings
}

// maxAnswer bounds an answer in bytes: that of some thousand keys.
const maxAnswer = 16 << 20

// mark stands before an answer. Other lines are what cmdlets show a person.
const mark = "keyferry "

// Start starts powershell.exe at path, and checks it and its module
// (KF-RMS-POWERSHELL, KF-RMS-MODULE). The session ends with ctx at the latest.
// The scratch directory is the session's own: it is made where a TPD is
// imported, and what an earlier session left there is deleted.
func Start(ctx context.Context, path, scratch string, hear Hearer) (*PowerShell, error) {
	nobody := func(string) {}
	for _, listener := range []*func(string){&hear.Detail, &hear.Note, &hear.Warn} {
		if *listener == nil {
			*listener = nobody
		}
	}
	p := &PowerShell{scratch: scratch, hear: hear}
	p.tidy() // first of all: what a kill left may hold a key
	var err error
	if p.process, err = startProcess(ctx, path); err != nil {
		return nil, err
	}
	p.answers = bufio.NewReaderSize(p.process.stdout, 64<<10)
	if err := p.begin(ctx); err != nil {
		p.process.end() // err says how it ended
		return nil, err
	}
	return p, nil
}

// begin checks the versions, then loads the very module that was looked at.
func (p *PowerShell) begin(ctx context.Context) error {
	a, err := p.ask(ctx, "asking for the versions", nil, "versions")
	switch {
	case err != nil:
		return err
	case a.Language != "":
		return control.RMSPowerShell.Refuse("Windows PowerShell runs in %s here, as AppLocker or App Control makes it: no session can be driven in it", control.Line(a.Language)).
			WithHint("hand the import over with --tenant kit, whose script runs in constrained language, or use a machine whose PowerShell runs in full language")
	}
	p.version = a.Versions
	if err := p.version.check(); err != nil {
		return err
	}
	if _, err = p.ask(ctx, "loading the AIPService module", nil, "load"); err != nil {
		return err
	}
	return nil
}

// tidy deletes the TPDs in the scratch directory. An antivirus may hold a file
// open for some seconds; what can't be deleted is told, and left to the next
// session: it never turns a success into a failure.
func (p *PowerShell) tidy() {
	err := p.sweep()
	for try := 0; err != nil && try < 10; try++ {
		time.Sleep(300 * time.Millisecond)
		err = p.sweep()
	}
	if err != nil {
		p.hear.Note("a temporary TPD can't be deleted yet, the next session will: " + err.Error())
	}
}

// sweep does without os.RemoveAll, which fails in Wine.
func (p *PowerShell) sweep() error {
	files, err := os.ReadDir(p.scratch)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, f := range files {
		err = errors.Join(err, os.Remove(filepath.Join(p.scratch, f.Name())))
	}
	return errors.Join(err, os.Remove(p.scratch))
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
	limited, cancel := context.WithTimeout(ctx, signInLimit)
	defer cancel()
	_, err := p.ask(limited, "signing in to Azure RMS", nil, "connect", []byte(environment))
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return control.RMSSignIn.Refuse("nobody signed in to Azure RMS within %v", signInLimit).WithHint("%s", signInHint)
	}
	p.inside = err == nil
	return err
}

// signInLimit is for how long the sign-in's window is waited for: where none
// can show, as over SSH, nobody would ever close it.
const signInLimit = 15 * time.Minute

// Keys lists the tenant's keys, oldest first.
func (p *PowerShell) Keys(ctx context.Context) ([]Key, error) { return p.keys(ctx, "") }

// keys lists the key of that identifier alone, or all.
func (p *PowerShell) keys(ctx context.Context, identifier string) ([]Key, error) {
	a, err := p.ask(ctx, "listing the tenant's keys", nil, "keys", []byte(identifier))
	if err != nil {
		return nil, err
	}
	return ReadKeys(a.Keys)
}

// ImportTPD imports a TPD.
func (p *PowerShell) ImportTPD(ctx context.Context, in TPDImport) error {
	switch {
	case len(in.Password) == 0 || !utf8.Valid(in.Password) || bytes.ContainsAny(in.Password, "\r\n\x00"):
		return control.SecretEmpty.Refuse("the password of %s is empty, or not one line of UTF-8", in.File)
	case (in.KeyURL == "") != in.MicrosoftManaged:
		return control.RMSKeyURL.Refuse("a keyless TPD is imported with the URL of its key, one that carries its key without one")
	}
	file := filepath.Join(p.scratch, in.File)
	defer p.tidy()
	if err := errors.Join(durable.MkdirAll(p.scratch, 0o700), durable.Create(file, in.TPD, 0o600)); err != nil {
		return err
	}
	_, err := p.ask(ctx, "importing the TPD "+in.File, in.Password, "import", []byte(file), []byte(in.FriendlyName), []byte(in.KeyURL))
	return err
}

// SetActive makes one key the active one.
func (p *PowerShell) SetActive(ctx context.Context, keyIdentifier string) error {
	switch keys, err := p.keys(ctx, keyIdentifier); {
	case err != nil:
		return err
	case len(keys) == 0:
		return control.RMSKeyMissing.Refuse("the tenant has no key %s", control.Quote(keyIdentifier))
	case keys[0].Status == Active:
		return nil
	}
	_, err := p.ask(ctx, "making the key "+keyIdentifier+" active", nil, "activate", []byte(keyIdentifier))
	return err
}

// Close signs out, where Connect signed in, and ends the session. Neither can
// fail what was done: what goes wrong is told as a note.
func (p *PowerShell) Close() {
	if p.gone {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), signOutLimit)
	defer cancel()
	var err error
	if p.inside {
		_, err = p.ask(ctx, "signing out of Azure RMS", nil, "disconnect")
	}
	if err = errors.Join(err, p.process.end()); err != nil {
		p.hear.Note("the session did not end well, which changes nothing in the tenant: " + control.Line(err.Error()))
	}
}

const signOutLimit = 30 * time.Second

// answer is what the session says to a request.
type answer struct {
	To       string   `json:"to"`       // the request's word
	Language string   `json:"language"` // all that there is where no session can be
	Error    string   `json:"error"`
	Kind     string   `json:"kind"`     // PowerShell's identifier of the error
	Types    []string `json:"types"`    // of the exception and those within, outermost first
	Log      []string `json:"log"`      // what -Verbose said
	Warnings []string `json:"warnings"` // each is shown
	Output   []string `json:"output"`   // what the cmdlet returned
	Policy   policy   `json:"policy"`   // where the module does not load
	cause    error    // of the end of a session
	Versions Versions `json:"versions"`
	Keys     []Listed `json:"tenant_keys"`
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
			return nil, p.lost(word, doing, errors.Join(ctx.Err(), err))
		}
	}
	a, err := p.receive()
	if err == nil && a.To != word && a.Language == "" {
		err = errors.New("it answered another request")
	}
	if err != nil {
		return nil, p.lost(word, doing, errors.Join(ctx.Err(), err))
	}
	for _, told := range []struct {
		lines []string
		to    func(string)
	}{{a.Log, p.hear.Detail}, {a.Output, p.hear.Note}, {a.Warnings, p.hear.Warn}} {
		for _, line := range told.lines {
			told.to(line)
		}
	}
	if a.Error != "" || a.Kind != "" {
		return nil, cause(word, doing, a)
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
				p.hear.Detail(said)
			}
			continue
		}
		a := new(answer)
		return a, json.Unmarshal(text, a)
	}
}

// line reads a line, of which no more is kept than an answer may have; what is
// no answer has no such limit.
func (p *PowerShell) line() ([]byte, error) {
	var line []byte
	for {
		part, err := p.answers.ReadSlice('\n')
		if len(line) < maxAnswer {
			line = append(line, part...)
		} else if bytes.HasPrefix(line, []byte(mark)) {
			return nil, errors.New("the answer is too long")
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimRight(line, "\r\n"), err
		}
	}
}

// lost is the refusal of a session that does not go on. It ends it: what the
// process said last tells why, and that is whole only then.
func (p *PowerShell) lost(word, doing string, err error) error {
	p.gone = true
	ended := p.process.end()
	what := fmt.Sprintf("Windows PowerShell does not go on: %v", errors.Join(err, ended))
	if last := p.process.stderr.String(); last != "" {
		what += ": " + last
	}
	return cause(word, doing, &answer{Error: what, cause: err})
}
