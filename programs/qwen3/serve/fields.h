/* fields.h - members of a JSON object, with their types and ranges. A member that is missing or null leaves the value
 * as it is. Each function returns false where the member is wrong, or where *e is a fault already. */
#ifndef FIELDS_H
#define FIELDS_H

#include "api_error.h"

/* The whole text as one JSON object; NULL on failure. Duplicate members are refused. */
json_t *fields_parse(const char *text, size_t n, api_error *e);
/* The member, NULL where it is missing or null. */
json_t *field_get(const json_t *object, const char *name);
bool field_bool(const json_t *object, const char *name, bool *value, api_error *e);
bool field_int(const json_t *object, const char *name, int64_t least, int64_t most, int64_t *value, api_error *e);
bool field_number(const json_t *object, const char *name, double least, double most, double *value, api_error *e);
/* *value belongs to the object. */
bool field_string(const json_t *object, const char *name, const char **value, api_error *e);
bool field_of_type(const json_t *object, const char *name, json_type type, json_t **value, api_error *e);

#endif
