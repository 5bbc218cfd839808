// the check at RCPT, which misbehaves for some recipients
'use strict'
exports.hook_rcpt = (next, connection, params) => {
    switch (params[0].user) {
        case 'bad':
            return next(DENY, 'no')
        case 'abort':
            return process.abort()
        case 'exit':
            return process.exit(1)
        case 'raise':
            throw new Error('bug in the plugin')
        case 'araise': // a bug in a callback
            setTimeout(() => {
                throw new Error('bug in the plugin')
            }, 10)
            return
        case 'sleep': // blocks the thread
            Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
            break
        case 'spin':
            for (;;);
    }
    next(OK)
}
