// the check at MAIL
'use strict'
exports.hook_mail = (next, connection, params) => (params[0].user === 'bad' ? next(DENY, 'no') : next())
