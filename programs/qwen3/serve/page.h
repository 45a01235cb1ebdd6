/* page.h - page.html as it is sent; cmake/embed.cmake writes the source. */
#ifndef PAGE_H
#define PAGE_H

#include <stddef.h>

extern const unsigned char page_html[]; /* [page_html_size] */
extern const size_t page_html_size;

#endif
