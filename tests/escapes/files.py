"""Attacks 45 to 51: a plugin reads what it was granted, writes nothing, holds no descriptor but its own."""

from __future__ import annotations

from tests.escapes.attack import Attack

ATTACKS = (
    Attack(
        name="45 secrets and other people's files",
        code="""
def attack(_):
    paths = ("/etc/shadow", "/etc/passwd", "/etc/hostname", "/etc/ssl/private", FACTS["secret"],
             os.path.dirname(__file__) + "/../zygote.sock", os.path.dirname(__file__) + "/../secret")
    return " ".join(sorted({tried(os.open, path, os.O_RDONLY) for path in paths}))
""",
        says="EACCES|ENOENT|EACCES ENOENT",
        by=("files", "mount_root"),
    ),
    Attack(
        name="45 other people's folders",
        code="""
def attack(_):
    import forkd
    own = (__file__, forkd.__file__)  # the folders on the way to what it may read
    seen = set()
    for folder in ("/home", "/root", "/var", "/run", "/tmp", os.path.dirname(os.path.dirname(__file__))):
        try:
            seen |= {f"{folder}/{name}" for name in os.listdir(folder)}
        except OSError:
            pass
    strange = {path for path in seen if not any(each.startswith(path + "/") for each in own)}
    return " ".join(sorted(strange)) or "nothing seen"
""",
        says="nothing seen",
        by=("files", "mount_root"),
    ),
    Attack(
        name="45 by another way to open",
        code="""
def attack(_):
    path = ctypes.addressof(ctypes.create_string_buffer(b"/etc/passwd"))
    how = ctypes.addressof(ctypes.create_string_buffer(24))
    at = 2**64 - 100
    return " ".join((call("openat2", at, path, how, 24),
                     call("openat", at, path, os.O_PATH),
                     call("execve", path, 0, 0), call("readlinkat", at, path, path, 4),
                     tried(os.listxattr, "/")))
""",
        says="EACCES (EACCES|ENOENT|[0-9]+) EACCES EACCES EACCES",  # O_PATH: a name, no content
        by=("seccomp",),
    ),
    Attack(
        name="46 change anything",
        code="""
def attack(_):
    here = os.path.dirname(__file__)
    new = here + "/new"
    return " ".join(sorted({
        tried(open, __file__, "r+b"), tried(open, __file__, "ab"), tried(os.rename, __file__, new),
        tried(os.link, __file__, new), tried(os.symlink, __file__, new), tried(os.chmod, __file__, 0o777),
        tried(os.mkdir, new), tried(os.unlink, __file__), tried(os.truncate, __file__, 0),
        tried(os.mknod, new), tried(os.utime, __file__), tried(os.chown, __file__, -1, -1),
        tried(os.open, here, os.O_TMPFILE | os.O_RDWR), tried(os.removexattr, __file__, "user.x"),
    }))
""",
        says="EACCES",
        by=("seccomp",),
    ),
    Attack(
        name="47 open again through /proc",
        code="""
def attack(_):
    own = [f"/proc/self/fd/{fd}" for fd in range(5)]
    other = ["/proc/self/exe", "/proc/self/mem", "/dev/fd/0", "/proc/self/fd/0"]
    # Not own pipes for reading: where worker and plugin share a uid that works, and gives nothing.
    # For writing it would: a leash with a second writer never hangs up.
    return " ".join(sorted({tried(os.open, path, flags) for path in own + other
                            for flags in (os.O_WRONLY, os.O_RDWR)}))
""",
        says="EACCES",
        by=("seccomp", "files"),
    ),
    Attack(
        name="48 inherited descriptors",
        code="""
def attack(_):
    return " ".join(str(fd) for fd in range(1024) if tried(os.fstat, fd) == "done")
""",
        says="0 1 2 3 4",
        by=("closed descriptors",),
    ),
    Attack(
        name="48 descriptors that were open at the import",
        code="""
SEEN = " ".join(str(fd) for fd in range(1024) if tried(os.fstat, fd) == "done")
def attack(_):
    return SEEN
""",
        says="0 1 2 3 4( [5-9])*",  # those of the zygote's own work
        by=("closed descriptors",),
    ),
    Attack(
        name="48 inherited environment",
        code="""
libc.getenv.restype = ctypes.c_char_p
def attack(_):
    return " ".join(sorted(os.environ)) + f" {libc.getenv(b'PATH')} {libc.getenv(b'HOME')}"
""",
        says="(LC_CTYPE )?LD_BIND_NOW( LD_ORIGIN_PATH)? TZ None None",
        by=("empty environment",),
    ),
    Attack(
        name="49 a folder held open since the import",
        code="""
FOLDER = os.open(os.path.dirname(__file__), os.O_RDONLY)
def attack(_):
    return tried(lambda: os.open("../..", os.O_RDONLY, dir_fd=FOLDER)) + " " + tried(os.fchdir, FOLDER)
""",
        says="EBADF EACCES",
        by=("closed descriptors",),
    ),
    Attack(
        name="51 working folder",
        code="""
def attack(_):
    return f"{tried(os.chdir, '/tmp')} {tried(os.getcwd)}"
""",
        says="EACCES EACCES",
        by=("seccomp",),
    ),
    Attack(
        name="51 a core file with somebody's mail",
        code="""
def attack(_):
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0): return "a core would be written"
    ctypes.string_at(8)
""",
        fails=("crash", "SIGSEGV"),
        status="SIGSEGV",
        by=("rlimits",),
    ),
)
