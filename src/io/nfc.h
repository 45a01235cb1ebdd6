/* nfc.h - Unicode normalisation form C (Unicode Standard Annex 15) with the data of utf8proc. */
#ifndef QWEN3_IO_NFC_H
#define QWEN3_IO_NFC_H

#include "io/utf8.h"

/* Workspace, kept between calls to reuse its memory; zeroed = empty. */
typedef struct nfc_work {
    text_buffer text;
    int32_t *points, *sorted; /* [room] */
    size_t n, room;
} nfc_work;

/* The text in form C, ill-formed bytes replaced by U+FFFD (one for each maximal subpart). *out [*out_bytes] is `text`
 * itself if nothing changes, otherwise it is in `work` and valid until the next call. Linear time for any text: long
 * runs of combining marks are sorted by counting. */
qwen3_status nfc_normalise(nfc_work *work, const unsigned char *text, size_t bytes, const unsigned char **out,
                           size_t *out_bytes, qwen3_error *err);
void nfc_work_free(nfc_work *work);

#endif
