// the check at the end of data, which reads the whole message
'use strict'
const { Writable } = require('node:stream')

exports.hook_data_post = (next, connection) => {
    let bad = false
    const reader = new Writable({
        write(piece, encoding, done) {
            bad = bad || piece.includes('EICAR')
            done()
        },
    })
    reader.once('finish', () => (bad ? next(DENY, 'no') : next()))
    connection.transaction.message_stream.pipe(reader)
}
