import time, requests, statistics
def test_lat(shop):
    n,v,uri=shop.model()
    s=requests.Session()
    def t(label,f,k=20):
        xs=[]
        for i in range(k):
            t0=time.perf_counter(); r=f(); xs.append(time.perf_counter()-t0)
        print(label, r.status_code if hasattr(r,"status_code") else "", "median %.1f min %.1f ms"%(1e3*statistics.median(xs),1e3*min(xs)))
    b=shop.url+"/api/2.0/mlflow/"
    t("version", lambda: s.get(shop.url+"/version"))
    t("get", lambda: s.get(b+"registered-models/get",params={"name":n}))
    t("deny", lambda: s.post(b+"registered-models/alias",json={"name":n,"alias":"champion","version":v}))
    t("deny nosession", lambda: requests.post(b+"registered-models/alias",json={"name":n,"alias":"champion","version":v}))
    def cl():
        try: shop.client.set_registered_model_alias(n,"champion",v)
        except Exception as e: return e
    t("client", cl)
    t("scratch", lambda: s.post(b+"registered-models/alias",json={"name":n,"alias":"scratch","version":v}))
    t("tag", lambda: s.post(b+"registered-models/set-tag",json={"name":n,"key":"a","value":"b"}))
