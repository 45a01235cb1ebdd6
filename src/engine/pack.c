/* pack.c - the public face of packing a model. */
#include "base/team.h"
#include "blocks/architectures.h"
#include "model/config.h"
#include "model/packed.h"

static qwen3_status pack(const pack_options *o, qwen3_error *err)
{
    if (strncmp(o->spec, SYNTHETIC_PREFIX, strlen(SYNTHETIC_PREFIX)) == 0)
        return fail(err, QWEN3_ERR_ARGUMENT,
                    "%s: has no files to pack; expected a GGUF file or the directory of a checkpoint", o->spec);
    source *src;
    qwen3_config config;
    qwen3_status status = model_source_open(o->spec, 0, &src, &config, err);
    if (!status)
        status = source_verify(src, &(source_share){0, 1, o->threads, o->work}, err);
    if (!status)
        status = pack_model(src, o, err);
    source_close(src);
    return status;
}

qwen3_status qwen3_model_pack(qwen3_comm *c, const char *spec, const qwen3_model_options *options, const char *output,
                              qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    const qwen3_model_options o = options ? *options : qwen3_model_options_default();
    const kernels *k;
    qwen3_rank_info info;
    if (qwen3_comm_topology(c, &info, err))
        return err->status;
    if (missing(spec, "spec", err) || missing(output, "output", err) || dtype_check(o.dtype, err) ||
        team_check_threads(o.threads, err))
        return qwen3_comm_agree(c, err);
    work told = {.report = o.progress, .context = o.progress_context};
    if (!kernels_choose(o.isa, &k, err) && comm_rank(c) == 0)
        pack(&(pack_options){spec, o.dtype, k, o.threads ? o.threads : info.default_threads, output, &told}, err);
    return qwen3_comm_agree(c, err);
}
