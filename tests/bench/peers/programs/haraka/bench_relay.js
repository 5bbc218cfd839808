// every client may relay, so that mail goes to the outbound queue
'use strict'
exports.hook_connect = (next, connection) => {
    connection.relaying = true
    next()
}
exports.hook_rcpt = (next) => next(OK)
