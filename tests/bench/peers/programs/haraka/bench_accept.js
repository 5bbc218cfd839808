// every recipient is ours
'use strict'
exports.hook_rcpt = (next) => next(OK)
