// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// variable is the environment variable by which the broker tells the program in
// the container what it can't see from there.
const variable = "KEYFERRY_INSIDE"

// message is what it holds. CreateProcess gives a process in a container another
// LOCALAPPDATA, where the state directory is not.
type message struct {
	Stage        Stage           `json:"stage"`
	LocalAppData string          `json:"local_app_data"`
	Directory    string          `json:"directory"` // the current one
	Console      bool            `json:"console"`   // there is one
	Told         json.RawMessage `json:"told"`      // what the program outside has seen for the one inside
}

var told message

func init() {
	text, is := os.LookupEnv(variable)
	if !is {
		return
	}
	err := errors.Join(json.Unmarshal([]byte(text), &told), os.Unsetenv(variable))
	if err != nil || told.Stage != Trial {
		told.Stage = Inside // which does not hold for who has not been put there
	}
	if told.LocalAppData != "" {
		os.Setenv("LOCALAPPDATA", told.LocalAppData)
	}
}

// Now is why this process runs.
func Now() Stage { return told.Stage }

// Told reads what the broker has seen, in the container.
func Told(into any) bool { return told.Told != nil && json.Unmarshal(told.Told, into) == nil }

// Broker is Windows for one command.
type Broker struct {
	Network bool // the module needs loopback
	See     any  // what the program inside is told

	sid *windows.SID
}

var (
	userenv        = windows.NewLazySystemDLL("userenv.dll")
	createProfile  = userenv.NewProc("CreateAppContainerProfile")
	firewall       = windows.NewLazySystemDLL("firewallapi.dll")
	loopbackExempt = firewall.NewProc("NetworkIsolationGetAppContainerConfig")
)

// Prepare makes the container's profile, which Windows keeps for each user from
// then on, and looks whether it shuts the network: that is the firewall's work.
func (b *Broker) Prepare() (err error) {
	if b.sid, err = windows.StringToSid(SID(Name)); err != nil {
		return err
	}
	if plain {
		return nil
	}
	if err := errors.Join(createProfile.Find(), loopbackExempt.Find()); err != nil {
		return errors.New("this Windows has no AppContainers")
	}
	exempt, err := b.exempt()
	switch {
	case err != nil:
		return fmt.Errorf("Windows does not tell whether loopback is open to it: %w", err)
	default:
		if err := network(b.Network, exempt); err != nil {
			return err
		}
	}
	for _, service := range []string{"BFE", "MpsSvc"} {
		if err := running(service); err != nil {
			return fmt.Errorf("Windows' firewall, which shuts its network, does not work: service %s: %w", service, err)
		}
	}
	name, err := windows.UTF16PtrFromString(Name)
	if err != nil {
		return err
	}
	var sid *windows.SID
	const exists = 0x80000000 | 7<<16 | uint32(windows.ERROR_ALREADY_EXISTS)
	text := uintptr(unsafe.Pointer(name))
	result, _, _ := createProfile.Call(text, text, text, 0, 0, uintptr(unsafe.Pointer(&sid)))
	switch {
	case uint32(result) == exists:
	case int32(result) < 0:
		return fmt.Errorf("Windows makes none (CreateAppContainerProfile): error %#x", uint32(result))
	default:
		defer windows.FreeSid(sid)
		if !windows.EqualSid(sid, b.sid) {
			return fmt.Errorf("Windows derives %s of its name, not %s", sid, b.sid)
		}
	}
	return nil
}

// exempt reports whether an administrator has opened loopback to the container.
func (b *Broker) exempt() (bool, error) {
	var count uint32
	var list *windows.SIDAndAttributes
	if code, _, _ := loopbackExempt.Call(uintptr(unsafe.Pointer(&count)), uintptr(unsafe.Pointer(&list))); code != 0 {
		return false, windows.Errno(code)
	}
	return slices.ContainsFunc(unsafe.Slice(list, count), func(s windows.SIDAndAttributes) bool { return windows.EqualSid(s.Sid, b.sid) }), nil
}

// running fails where a service does not run.
func running(name string) error {
	manager, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return err
	}
	defer windows.CloseServiceHandle(manager)
	wide, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return err
	}
	service, err := windows.OpenService(manager, wide, windows.SERVICE_QUERY_STATUS)
	if err != nil {
		return err
	}
	defer windows.CloseServiceHandle(service)
	var status windows.SERVICE_STATUS
	if err := windows.QueryServiceStatus(service, &status); err != nil {
		return err
	}
	if status.CurrentState != windows.SERVICE_RUNNING {
		return errors.New("it does not run")
	}
	return nil
}

// Rights on files: to read and execute; and to write, make and remove as well. To
// change the access list is in neither.
const (
	mayRead  = windows.FILE_GENERIC_READ | windows.FILE_GENERIC_EXECUTE
	mayWrite = mayRead | windows.FILE_GENERIC_WRITE | windows.DELETE
)

// Change adds or removes the entry of one file or directory, and touches nothing else
// of its list; what inherits from it is not gone through.
func (b *Broker) Change(path string, p Place, add bool) (bool, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return false, err
	}
	handle, err := windows.CreateFile(name, windows.READ_CONTROL|windows.WRITE_DAC, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
		nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err != nil {
		return false, err
	}
	defer windows.CloseHandle(handle)
	inheritance := uint32(windows.NO_INHERITANCE)
	if info, err := os.Lstat(path); err == nil && info.IsDir() && !p.Plain {
		inheritance = windows.SUB_CONTAINERS_AND_OBJECTS_INHERIT
	}
	return b.change(handle, windows.SE_FILE_OBJECT, inheritance, p.Write, add)
}

func (b *Broker) change(object windows.Handle, kind windows.SE_OBJECT_TYPE, inheritance uint32, write, add bool) (bool, error) {
	is, err := windows.GetSecurityInfo(object, kind, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return false, err
	}
	list, _, err := is.DACL()
	if err != nil || list == nil {
		return false, err // without a list, all are let in
	}
	if add == b.named(list, write) {
		return false, nil
	}
	entry := windows.EXPLICIT_ACCESS{AccessPermissions: mayRead, AccessMode: windows.GRANT_ACCESS, Inheritance: inheritance,
		Trustee: windows.TRUSTEE{TrusteeForm: windows.TRUSTEE_IS_SID, TrusteeType: windows.TRUSTEE_IS_UNKNOWN, TrusteeValue: windows.TrusteeValueFromSID(b.sid)}}
	if write {
		entry.AccessPermissions = mayWrite
	}
	if !add {
		entry.AccessMode = windows.REVOKE_ACCESS
	}
	changed, err := windows.ACLFromEntries([]windows.EXPLICIT_ACCESS{entry}, list)
	if err != nil {
		return false, err
	}
	control, _, err := is.Control()
	if err != nil {
		return false, err
	}
	descriptor, err := windows.NewSecurityDescriptor()
	if err != nil {
		return false, err
	}
	if err := descriptor.SetDACL(changed, true, false); err != nil {
		return false, err
	}
	// So that it stays protected from what its directory hands down, or open to it.
	set := control & (windows.SE_DACL_PROTECTED | windows.SE_DACL_AUTO_INHERITED)
	if set&windows.SE_DACL_AUTO_INHERITED != 0 {
		set |= windows.SE_DACL_AUTO_INHERIT_REQ
	}
	if err := descriptor.SetControl(windows.SE_DACL_PROTECTED|windows.SE_DACL_AUTO_INHERITED|windows.SE_DACL_AUTO_INHERIT_REQ, set); err != nil {
		return false, err
	}
	return true, windows.SetKernelObjectSecurity(object, windows.DACL_SECURITY_INFORMATION, descriptor)
}

// named reports whether a list lets the container in already.
func (b *Broker) named(list *windows.ACL, write bool) bool {
	every, err := windows.CreateWellKnownSid(windows.WinBuiltinAnyPackageSid)
	want := windows.ACCESS_MASK(mayRead)
	if write {
		want = mayWrite
	}
	for i := range list.AceCount {
		var entry *windows.ACCESS_ALLOWED_ACE
		if windows.GetAce(list, uint32(i), &entry) != nil || entry.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE || entry.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 {
			continue
		}
		sid := (*windows.SID)(unsafe.Pointer(&entry.SidStart))
		if entry.Mask&want == want && (windows.EqualSid(sid, b.sid) || err == nil && windows.EqualSid(sid, every)) {
			return true
		}
	}
	return false
}

// patience is how long a trial may take: a module may wait for its service.
const patience = 20 * time.Second

// Run starts the program again, with the same command line, in the same console and
// with the same standard streams. It ends when its broker does.
func (b *Broker) Run(stage Stage) (ended Ended, err error) {
	tell := message{Stage: stage, LocalAppData: os.Getenv("LOCALAPPDATA"), Console: console() == nil}
	if tell.Directory, err = os.Getwd(); err != nil {
		return ended, err
	}
	if tell.Told, err = json.Marshal(b.See); err != nil {
		return ended, err
	}
	text, err := json.Marshal(tell)
	if err != nil {
		return ended, err
	}
	if err := os.Setenv(variable, string(text)); err != nil {
		return ended, err
	}
	defer os.Unsetenv(variable)

	streams := []windows.Handle{}
	for _, number := range []uint32{windows.STD_INPUT_HANDLE, windows.STD_OUTPUT_HANDLE, windows.STD_ERROR_HANDLE} {
		handle, err := windows.GetStdHandle(number)
		if err != nil {
			return ended, err
		}
		streams = append(streams, handle)
	}
	var answer *os.File
	if stage == Trial { // of which nobody but the broker hears
		nothing, err := os.Open(os.DevNull)
		if err != nil {
			return ended, err
		}
		defer nothing.Close()
		var says *os.File
		if answer, says, err = os.Pipe(); err != nil {
			return ended, err
		}
		defer answer.Close()
		defer says.Close()
		streams = []windows.Handle{windows.Handle(nothing.Fd()), windows.Handle(says.Fd()), windows.Handle(nothing.Fd())}
		process, err := b.start(streams)
		if err != nil {
			return ended, err
		}
		defer process.close()
		says.Close()
		said := make(chan string)
		go func() {
			text, _ := io.ReadAll(io.LimitReader(answer, 1<<12)) // what can't be read is no answer
			said <- strings.TrimSpace(string(text))
		}()
		ended.Code, err = process.wait(patience)
		ended.Said = <-said
		return ended, err
	}
	process, err := b.start(streams)
	if err != nil {
		return ended, err
	}
	defer process.close()
	ended.Code, err = process.wait(0)
	return ended, err
}

// started is a process in the container, in a job that ends it with the broker.
type started struct{ job, process windows.Handle }

func (s started) close() {
	windows.CloseHandle(s.job) // which ends it, if it has not ended
	windows.CloseHandle(s.process)
}

// wait waits for the end, 0 as long as it takes.
func (s started) wait(most time.Duration) (code uint32, err error) {
	milliseconds := uint32(windows.INFINITE)
	if most > 0 {
		milliseconds = uint32(most.Milliseconds())
	}
	switch event, err := windows.WaitForSingleObject(s.process, milliseconds); {
	case err != nil:
		return 0, err
	case event == uint32(windows.WAIT_TIMEOUT):
		return 0, errors.Join(fmt.Errorf("it did not end within %s", most), windows.TerminateProcess(s.process, 1))
	}
	err = windows.GetExitCodeProcess(s.process, &code)
	return code, err
}

// start starts the program with the streams, and no other handle of this one.
func (b *Broker) start(streams []windows.Handle) (s started, err error) {
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	program, err := os.Executable()
	if err != nil {
		return s, err
	}
	path, err := windows.UTF16PtrFromString(program)
	if err != nil {
		return s, err
	}
	line, err := windows.UTF16PtrFromString(windows.UTF16PtrToString(windows.GetCommandLine())) // CreateProcess may write into it
	if err != nil {
		return s, err
	}
	var inherited []windows.Handle // each once
	for _, handle := range streams {
		if handle != 0 && handle != windows.InvalidHandle && !slices.Contains(inherited, handle) {
			if err := windows.SetHandleInformation(handle, windows.HANDLE_FLAG_INHERIT, windows.HANDLE_FLAG_INHERIT); err != nil {
				return s, fmt.Errorf("hand a stream on: %w", err)
			}
			inherited = append(inherited, handle)
		}
	}
	attributes, err := windows.NewProcThreadAttributeList(2)
	if err != nil {
		return s, err
	}
	defer attributes.Delete()
	if len(inherited) > 0 {
		err = attributes.Update(windows.PROC_THREAD_ATTRIBUTE_HANDLE_LIST, unsafe.Pointer(&inherited[0]), uintptr(len(inherited))*unsafe.Sizeof(inherited[0]))
	}
	if err != nil {
		return s, err
	}
	capabilities := struct { // SECURITY_CAPABILITIES: none
		sid      *windows.SID
		list     *windows.SIDAndAttributes
		count    uint32
		reserved uint32
	}{sid: b.sid}
	const securityCapabilities = 0x00020009 // PROC_THREAD_ATTRIBUTE_SECURITY_CAPABILITIES
	if !plain {
		if err := attributes.Update(securityCapabilities, unsafe.Pointer(&capabilities), unsafe.Sizeof(capabilities)); err != nil {
			return s, err
		}
	}
	if s.job, err = windows.CreateJobObject(nil, nil); err != nil {
		return s, err
	}
	limits := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{}
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	if _, err = windows.SetInformationJobObject(s.job, windows.JobObjectExtendedLimitInformation, uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits))); err != nil {
		return s, err
	}
	startup := windows.StartupInfoEx{ProcThreadAttributeList: attributes.List()}
	startup.Cb = uint32(unsafe.Sizeof(startup))
	startup.Flags = windows.STARTF_USESTDHANDLES
	startup.StdInput, startup.StdOutput, startup.StdErr = streams[0], streams[1], streams[2]
	var process windows.ProcessInformation
	const flags = windows.CREATE_SUSPENDED | windows.CREATE_UNICODE_ENVIRONMENT | windows.EXTENDED_STARTUPINFO_PRESENT
	if err = windows.CreateProcess(path, line, nil, nil, len(inherited) > 0, flags, nil, nil, &startup.StartupInfo, &process); err != nil {
		return s, err
	}
	s.process = process.Process
	defer windows.CloseHandle(process.Thread)
	if err = windows.AssignProcessToJobObject(s.job, s.process); err == nil {
		_, err = windows.ResumeThread(process.Thread)
	}
	if err != nil {
		windows.TerminateProcess(s.process, 1)
	}
	return s, err
}

// console fails where there is none to ask a person at.
func console() error {
	var mode uint32
	for _, name := range []string{"CONIN$", "CONOUT$"} {
		wide, err := windows.UTF16PtrFromString(name)
		if err != nil {
			return err
		}
		handle, err := windows.CreateFile(wide, windows.GENERIC_READ|windows.GENERIC_WRITE, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
		if err != nil {
			return err
		}
		if err = windows.GetConsoleMode(handle, &mode); err == nil {
			err = windows.SetConsoleMode(handle, mode)
		}
		windows.CloseHandle(handle)
		if err != nil {
			return err
		}
	}
	return nil
}
